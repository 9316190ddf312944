// Candidates side by side: which is better, or how good each one is by each criterion of a rubric. Their order is drawn for every item
// and every person, and stays the same; who wrote which is not known here until the answer is given.

const DEEPEST = 1000; // so many differences are looked for; beyond that all between the common ends counts as different

// --- the order, and what differs ---

function chance(text) { // the same number, 0 to 1, for the same text: FNV-1a, and a last mix
  let hash = 2166136261;
  for (let n = 0; n < text.length; n++) hash = Math.imul(hash ^ text.charCodeAt(n), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 2246822519);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}
function shuffled(candidates, seed) {
  return candidates.map((one) => [chance(`${seed} ${one.id}`), one]).sort((a, b) => a[0] - b[0] || (a[1].id < b[1].id ? -1 : 1)).map(([, one]) => one);
}

// Which tokens of each of two lists the other does not have there: Myers' shortest way from one to the other.
function differences(a, b) {
  let begin = 0, endA = a.length, endB = b.length;
  while (begin < endA && begin < endB && a[begin] === b[begin]) begin++;
  while (endA > begin && endB > begin && a[endA - 1] === b[endB - 1]) endA--, endB--;
  const n = endA - begin, m = endB - begin, onlyA = new Set(), onlyB = new Set(), trace = [];
  let ends = new Map([[1, 0]]), found = -1;
  for (let d = 0; d <= Math.min(n + m, DEEPEST) && found < 0; d++) {
    trace.push(new Map(ends));
    for (let k = -d; k <= d; k += 2) {
      let x = k === -d || (k !== d && ends.get(k - 1) < ends.get(k + 1)) ? ends.get(k + 1) : ends.get(k - 1) + 1;
      while (x < n && x - k < m && a[begin + x] === b[begin + x - k]) x++;
      ends.set(k, x);
      if (x >= n && x - k >= m) {
        found = d;
        break;
      }
    }
  }
  if (found < 0) {
    for (let x = begin; x < endA; x++) onlyA.add(x);
    for (let y = begin; y < endB; y++) onlyB.add(y);
    return [onlyA, onlyB];
  }
  for (let d = found, x = n, y = m; d > 0; d--) {
    const before = trace[d], k = x - y, down = k === -d || (k !== d && before.get(k - 1) < before.get(k + 1));
    const fromX = before.get(down ? k + 1 : k - 1), fromY = fromX - (down ? k + 1 : k - 1);
    down ? onlyB.add(begin + fromY) : onlyA.add(begin + fromX);
    [x, y] = [fromX, fromY];
  }
  return [onlyA, onlyB];
}
const wordsOf = (text) => text.match(/\s+|[\p{L}\p{M}\p{N}_]+|[^]/gu) ?? [];

function marked(tokens, only) { // as nodes: what is the same, and what is not
  const nodes = [];
  let run = "", differs = false;
  const close = () => run && nodes.push(differs ? make("mark", { textContent: run }) : run);
  tokens.forEach((token, n) => {
    const here = token.trim() ? only.has(n) : differs && only.has(n + 1); // blanks only between two words that differ
    if (here !== differs) {
      close();
      [run, differs] = ["", here];
    }
    run += token;
  });
  close();
  return nodes;
}

// --- the surface ---

let comparisons = 0;

function makeCompareSurface(api) {
  const own = `mlops-compare-${++comparisons}`, { project } = api;
  const scoring = project.kinds.includes("score"), criteria = project.criteria;
  const prompt = make("div", { className: "prompt", dir: "auto" }), asked = make("section", { className: "asked", ariaLabel: "Prompt" }, make("h4", { textContent: "Prompt" }), prompt);
  const candidates = make("div", { className: "candidates" });
  const tie = make("button", { type: "button", className: "choice tie", onclick: () => choose("tie") });
  const tieVotes = make("span", { className: "votes" });
  const told = make("p", { className: "spoken", role: "status" });
  const element = make("div", { className: "label-compare", tabIndex: -1 }, asked, candidates, make("div", { className: "even", hidden: scoring }, tie, tieVotes), told);
  let shown = [], cards = [], different = false, active = [0, 0]; // the candidate and the criterion that keys go to

  const letter = (n) => String.fromCharCode(65 + n);
  const given = () => api.annotations();
  const chosen = () => given().find((one) => one.kind === "choice")?.label ?? "";
  const scoreOf = (candidate, criterion, annotations = given()) => annotations.find((one) => one.kind === "score" && one.label === criterion.name && (one.candidate ?? "") === candidate.id);
  const steps = (criterion) => [...Array(criterion.highest - criterion.lowest + 1).keys()].map((n) => n + criterion.lowest);

  // --- what a person says ---

  function choose(label) {
    if (api.readOnly || scoring || !shown.length) return;
    const there = given().filter((one) => one.kind === "choice");
    if (there.length === 1 && there[0].label === label && !there[0].source) return api.act("delete", { id: there[0].id });
    for (const one of there) if (one.id !== "choice") api.act("delete", { id: one.id });
    api.act("draw", { annotation: { id: "choice", kind: "choice", label } });
  }
  function score(value, [place, line] = active, further = true) {
    const candidate = shown[place], criterion = criteria[line];
    if (api.readOnly || !candidate || value < criterion.lowest || value > criterion.highest) return;
    const there = scoreOf(candidate, criterion), id = there?.id ?? `${criterion.name}:${candidate.id}`;
    if (there?.value !== value || there.source)
      api.act("draw", { annotation: { id: id.length > 100 ? api.newId() : id, kind: "score", label: criterion.name, value, candidate: candidate.id } });
    if (further) go(next(place, line) ?? [place, line]);
  }
  function next(place, line) { // the first one without a score after this one, around the end
    const cells = shown.flatMap((_, n) => criteria.map((_, m) => [n, m])), here = cells.findIndex(([n, m]) => n === place && m === line);
    return [...cells.slice(here + 1), ...cells.slice(0, here)].find(([n, m]) => !scoreOf(shown[n], criteria[m]));
  }
  function go([place, line]) {
    active = [Math.min(Math.max(place, 0), shown.length - 1), Math.min(Math.max(line, 0), criteria.length - 1)];
    update();
    const row = cards[active[0]]?.rows[active[1]];
    if (!row) return;
    if (candidates.contains(element.getRootNode().activeElement) && element.getRootNode().activeElement.role === "radio") row.radios.find((radio) => radio.tabIndex === 0).focus({ preventScroll: true });
    row.element.scrollIntoView({ block: "nearest" });
    const there = scoreOf(shown[active[0]], row.criterion);
    write(told, `${row.criterion.name} of ${letter(active[0])}: ${there ? there.value : "no score"}`);
  }
  function move(by) { // up and down through all lines of all candidates
    const at = active[0] * criteria.length + active[1] + by;
    if (at >= 0 && at < shown.length * criteria.length) go([Math.floor(at / criteria.length), at % criteria.length]);
  }
  function change(by) { // the value, by one
    const [place, line] = active, criterion = criteria[line], there = scoreOf(shown[place], criterion);
    const value = there ? there.value + by : by > 0 ? criterion.lowest : criterion.highest;
    score(Math.min(criterion.highest, Math.max(criterion.lowest, value)), active, false);
    go(active);
  }

  // --- on the page ---

  function card(candidate, n) {
    const text = make("div", { className: "text", dir: "auto", tabIndex: 0, role: "region", ariaLabel: `Candidate ${letter(n)}` });
    const name = make("span", { className: "quiet", textContent: candidate.name ?? "" }), votes = make("span", { className: "votes" });
    const head = make("h4", {}, make("span", { className: "letter", textContent: letter(n) }), name);
    const button = make("button", { type: "button", className: "choice", onclick: () => choose(candidate.id) });
    const rows = !scoring ? [] : criteria.map((criterion, line) => {
      const group = `${own}-${n}-${line}`, others = make("span", { className: "votes" });
      const radios = steps(criterion).map((value) => make("button", { type: "button", role: "radio", textContent: value, ariaLabel: `${value}`, onclick: () => ((active = [n, line]), score(value, active, false)) }));
      const line1 = make("div", { className: "criterion" }, make("span", { className: "name", id: group, textContent: criterion.name, title: criterion.description }),
        make("div", { className: "scale", role: "radiogroup", "aria-labelledby": `${group}-of ${group}` }, ...radios), others,
        make("span", { className: "quiet about", textContent: criterion.description }));
      return { element: line1, radios, others, criterion };
    });
    head.id = `${own}-${n}-0-of`;
    const element = make("article", { className: "candidate", "aria-labelledby": head.id }, head, text, ...(scoring ? [make("div", { className: "rubric" }, ...rows.map((row) => row.element))] : [make("div", { className: "even" }, button, votes)]));
    for (const [line, row] of rows.entries()) row.element.querySelector("[role=radiogroup]").setAttribute("aria-labelledby", `${head.id} ${own}-${n}-${line}`);
    return { element, text, button, votes, rows, candidate };
  }
  const dot = (other, words) => make("i", { style: `--c:${other.colour}`, title: `${other.by}${words}`, textContent: other.by.slice(0, 2) });

  function showTexts() {
    const tokens = shown.map((one) => wordsOf(String(one.text ?? "")));
    cards.forEach(({ text }, n) => {
      const against = n || shown.length !== 2 ? 0 : 1; // two: each beside the other; more: each beside the first
      if (!different || n === against) return text.replaceChildren(String(shown[n].text ?? ""));
      text.replaceChildren(...marked(tokens[n], differences(tokens[n], tokens[against])[0]));
    });
  }

  function update() {
    const better = chosen(), others = api.others();
    cards.forEach(({ element: one, button, votes, rows, candidate }, n) => {
      one.classList.toggle("chosen", better === candidate.id && !scoring);
      if (!scoring) {
        mark(button, "aria-pressed", String(better === candidate.id));
        write(button, `${letter(n)} is ${shown.length === 2 ? "better" : "best"}`);
        button.append(make("kbd", { textContent: shown.length === 2 ? (n ? "\u2192" : "\u2190") : `${n + 1}`, ariaHidden: "true" }));
        button.disabled = api.readOnly;
        votes.replaceChildren(...others.filter((other) => other.annotations.some((a) => a.kind === "choice" && a.label === candidate.id)).map((other) => dot(other, "")));
      }
      rows.forEach((row, line) => {
        const there = scoreOf(candidate, row.criterion), here = active[0] === n && active[1] === line;
        row.element.classList.toggle("active", here);
        row.radios.forEach((radio, place) => {
          const value = row.criterion.lowest + place;
          mark(radio, "aria-checked", String(there?.value === value));
          radio.classList.toggle("guess", there?.value === value && Boolean(there.source));
          radio.tabIndex = there ? (there.value === value ? 0 : -1) : place ? -1 : 0; // one stop of the Tab key for each line
          radio.disabled = api.readOnly;
        });
        row.others.replaceChildren(...others.flatMap((other) => {
          const theirs = scoreOf(candidate, row.criterion, other.annotations);
          return theirs ? [make("i", { style: `--c:${other.colour}`, title: other.by, textContent: `${other.by.slice(0, 2)} ${theirs.value}` })] : [];
        }));
      });
    });
    if (scoring) return;
    mark(tie, "aria-pressed", String(better === "tie"));
    write(tie, "Tie");
    tie.append(make("kbd", { textContent: "=", ariaHidden: "true" }));
    tie.disabled = api.readOnly;
    tieVotes.replaceChildren(...others.filter((other) => other.annotations.some((a) => a.kind === "choice" && a.label === "tie")).map((other) => dot(other, "")));
  }

  const key = (name, words, combination, act) => ({ name, words, key: combination, act, group: scoring ? "Scores" : "Candidates" });
  const digits = [...Array(10).keys()];
  const pair = () => shown.length === 2;
  const keys = scoring
    ? [
        key("line_below", "next criterion", "ArrowDown", () => move(1)),
        key("line_above", "criterion before", "ArrowUp", () => move(-1)),
        key("more", "one more", "ArrowRight", () => change(1)),
        key("less", "one less", "ArrowLeft", () => change(-1)),
        key("next_candidate", "next candidate", "]", () => go([active[0] + 1, active[1]])),
        key("candidate_before", "candidate before", "[", () => go([active[0] - 1, active[1]])),
        ...digits.map((value) => key(`score_${value}`, `score ${value}`, String(value), () => score(value))),
        key("clear", "take the score back", ["Delete", "Backspace"], () => {
          const there = shown[active[0]] && scoreOf(shown[active[0]], criteria[active[1]]);
          if (there && !api.readOnly) api.act("delete", { id: there.id });
        }),
      ]
    : [
        key("left", "the left one is better", "ArrowLeft", () => (pair() ? choose(shown[0].id) : false)),
        key("right", "the right one is better", "ArrowRight", () => (pair() ? choose(shown[1].id) : false)),
        key("tie", "tie", ["=", "0", "ArrowDown"], () => choose("tie")),
        ...digits.slice(1).map((n) => key(`candidate_${n}`, `candidate ${letter(n - 1)} is better`, String(n), () => (shown[n - 1] ? choose(shown[n - 1].id) : false))),
      ];

  return {
    element,
    keys,
    tools: [{ name: "differences", words: "Differences", key: "d", pressed: () => different, act: () => ((different = !different), showTexts()) }],
    show({ id, data }) {
      shown = shuffled((data.candidates ?? []).map((one) => ({ ...one, id: String(one.id) })), `${id} ${api.user ?? ""}`);
      write(prompt, String(data.prompt ?? ""));
      asked.hidden = !data.prompt;
      cards = shown.map(card);
      candidates.style.setProperty("--columns", shown.length);
      candidates.replaceChildren(...cards.map((one) => one.element));
      active = [0, 0];
      showTexts();
      if (scoring && shown.length) active = next(shown.length - 1, criteria.length - 1) ?? [0, 0];
      update();
    },
    update,
    missing() {
      if (!scoring) return chosen() ? "" : "Choose the better one, or tie.";
      const place = shown.flatMap((_, n) => criteria.map((_, m) => [n, m])).find(([n, m]) => !scoreOf(shown[n], criteria[m]));
      if (!place) return "";
      go(place);
      return `Score ${criteria[place[1]].name} of ${letter(place[0])} first.`;
    },
    cancel: () => false,
    resized() {},
    destroy() {},
  };
}

export default { render: labelCard(makeCompareSurface) };
