// What is said about a text, drawn on layers under and over it, and only for the part that is on the screen.

const LEVELS = 5; // of spans over each other that are told apart; deeper ones share the last
const STEP = 15, BAR = 3; // pixels from one level to the next, and of a level's line

// Which spans lie over each other: `level` 0 is next to the text; a span stands below all shorter ones that it touches.
function stack(spans) {
  const sorted = [...spans].sort((a, b) => a.start - b.start || b.end - a.end);
  let group = [], reach = -1, deepest = 0;
  const settle = () => {
    if (group.length === 1) group[0].level = 0;
    else {
      group.sort((a, b) => a.end - a.start - (b.end - b.start) || a.start - b.start);
      group.forEach((one, n) => {
        one.level = 0;
        for (let m = 0; m < n; m++) if (group[m].start < one.end && one.start < group[m].end) one.level = Math.max(one.level, group[m].level + 1);
      });
    }
    for (const one of group) deepest = Math.max(deepest, (one.level = Math.min(one.level, LEVELS - 1)));
  };
  for (const one of sorted) {
    if (group.length && one.start >= reach) {
      settle();
      group = [];
    }
    group.push(one);
    reach = Math.max(group.length > 1 ? reach : -1, one.end);
  }
  if (group.length) settle();
  return { sorted, deepest };
}
function boxAt(name, { left, top, width, height }, colour) {
  const made = make("div", { className: name });
  made.style.cssText = `left:${left.toFixed(1)}px;top:${top.toFixed(1)}px;width:${width.toFixed(1)}px;height:${height.toFixed(1)}px;--c:${colour}`;
  return made;
}

function makeTextDrawing({ api, now, paper, foot, spanned, tying, tagging, span, excerpt, low, high }, { showArcs }) {
  let known = []; // what was read
  let levels = 1; // of lines under the text
  let asked = 0, drawn = 0; // the frames in which we draw, while there are any

  function read() { // the annotations in units, and how they lie over each other; nothing to do where only the selection moved
    const told = [api.annotations(), ...api.others().flatMap((other) => [other.by, other.annotations])];
    if (told.length === known.length && told.every((one, n) => one === known[n])) return;
    known = told;
    const { toUnit } = now.count;
    const of = (one, by, colour) =>
      ({ id: one.id, start: toUnit(one.start), end: toUnit(one.end), label: one.label, source: one.source ?? "", score: one.score, colour, by, annotation: one, level: 0 });
    const plain = (annotations, by, colourOf) => stack(annotations.filter((one) => one.kind === "span").map((one) => of(one, by, colourOf(one))));
    const { sorted: mine, deepest } = plain(told[0], "", (one) => api.colour(one.label));
    now.spans = mine;
    let below = deepest + 1;
    for (const other of api.others()) { // everybody has lines of their own, below
      const theirs = plain(other.annotations, other.by, () => other.colour);
      for (const one of theirs.sorted) one.level += below;
      below += theirs.deepest + 1;
      now.spans = [...now.spans, ...theirs.sorted];
    }
    levels = Math.max(levels, below); // the lines move apart when they must, and not together again while somebody is at work
    const gap = `${4 + STEP * levels + (tying ? 16 : 0)}px`;
    if (paper.sheet.style.getPropertyValue("--gap") !== gap) paper.sheet.style.setProperty("--gap", gap);
  }

  function showSpans() {
    if (!spanned) return;
    now.seen = paper.view();
    const { first, last } = now.seen, tints = [], rows = new Map(), chosen = api.selected(); // rows: the names that stand at one height
    for (const one of now.spans) {
      if (one.end <= first || one.start >= last) continue;
      const rects = paper.rects(Math.max(one.start, first), Math.min(one.end, last)), active = one.id === chosen && !one.by;
      for (const rect of rects) {
        if (!one.by) tints.push(boxAt(`tint${active ? " active" : ""}${now.tie?.head === one.id ? " head" : ""}`, { ...rect, top: rect.top - 1, height: rect.height + 2 }, one.colour));
        tints.push(boxAt(`bar${one.source || one.by ? " guess" : ""}${active ? " active" : ""}`, { ...rect, top: rect.top + rect.height + 2 + one.level * STEP, height: BAR }, one.colour));
      }
      if (!rects.length || one.start < first) continue;
      const back = paper.backwards(one.start), rect = rects[0], top = rect.top + rect.height + 2 + BAR + one.level * STEP, key = Math.round(top);
      if (!rows.has(key)) rows.set(key, []);
      rows.get(key).push({ one, top, back, left: back ? rect.left + rect.width : rect.left, active });
    }
    paper.tints.replaceChildren(...tints);
    paper.tags.replaceChildren(...tagsOf([...rows.values()], paper.sheet.clientWidth));
    if (tying) showArcs();
  }
  function tagsOf(rows, wide) { // each as wide as the next one leaves it room
    const tags = [];
    for (const row of rows) {
      row.sort((a, b) => a.left - b.left);
      row.forEach(({ one, top, back, left, active }, n) => {
        const room = back ? left - (row[n - 1]?.left ?? 0) - 4 : (row[n + 1]?.left ?? wide) - left - 4;
        if (room < 7) return;
        const words = [one.by && `${one.by}:`, one.label, one.source && one.score != null ? `${Math.round(100 * one.score)} %` : ""].filter(Boolean).join(" ");
        const tag = make("span", { className: `tag${active ? " active" : ""}${one.source ? " guess" : ""}`, textContent: words, title: noteOf(one) });
        tag.style.cssText = `top:${top.toFixed(1)}px;max-width:${room.toFixed(1)}px;${back ? `right:${(wide - left).toFixed(1)}px` : `left:${left.toFixed(1)}px`};--c:${one.colour}`;
        if (!one.by) tag.dataset.id = one.id;
        tags.push(tag);
      });
    }
    return tags;
  }

  function showPick() { // what is chosen and what a search found; once a frame while somebody drags
    drawn ||= requestAnimationFrame(() => {
      drawn = 0;
      const made = [], { first, last } = now.seen ?? paper.view();
      for (const [start, end] of now.hits) if (end > first && start < last) made.push(...paper.rects(start, end).map((rect) => boxAt("hit", rect, "")));
      if (now.range) made.push(...paper.rects(Math.max(low(), first), Math.min(high(), last)).map((rect) => boxAt("pick", { ...rect, top: rect.top - 2, height: rect.height + 4 }, "")));
      const handles = handlesOf(!now.range && !api.readOnly && spanned && !tagging && span(api.selected()));
      paper.picks.replaceChildren(...made);
      paper.tags.querySelectorAll(".handle").forEach((old) => old.remove());
      paper.tags.append(...handles); // above the text, where a pointer reaches them
      tellFoot();
    });
  }
  function handlesOf(one) {
    const rects = one ? paper.rects(one.start, one.end) : [];
    if (!rects.length) return [];
    const back = paper.backwards(one.start);
    return [["start", rects[0], back], ["end", rects.at(-1), !back]].map(([end, rect, right]) => {
      const grip = boxAt("handle", { left: rect.left + (right ? rect.width : 0) - 6, top: rect.top + rect.height - 2.5 + one.level * STEP, width: 12, height: 12 }, one.colour);
      grip.dataset.end = end; // at its line, not at the text: a span can begin where another ends
      return grip;
    });
  }
  function tellFoot() {
    const size = `${now.count.points.toLocaleString("en")} characters`, words = now.range && `“${excerpt(low(), high())}”`;
    if (!spanned) return write(foot, size);
    if (tagging) {
      const starts = new Set(now.spans.filter((one) => !one.by).map((one) => one.start)), done = now.tokens.filter(([start]) => starts.has(start)).length;
      return write(foot, `${done} of ${now.tokens.length} ${now.unit} tagged${words ? ` · ${words}` : ""}`);
    }
    write(foot, words ? `${words} ${now.count.toPoint(low())} to ${now.count.toPoint(high())}` : now.tie ? `${now.tie.relation.name}: choose where it goes to` : size);
  }

  function drawAgain() {
    showSpans();
    showPick();
  }
  paper.element.addEventListener("scroll", () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      const { seen } = now, { scrollTop, clientHeight } = paper.element, near = clientHeight / 3; // from the edge of what is drawn
      if (!seen || ((seen.first === 0 || scrollTop - near > seen.from) && (seen.last === now.text.length || scrollTop + clientHeight + near < seen.to))) return;
      drawAgain();
    });
  }, { passive: true });
  const sizes = new ResizeObserver(() => {
    now.seen = null;
    drawAgain();
  });
  sizes.observe(paper.lines);

  return {
    begin() { // with another text
      [known, levels, now.seen] = [[], 1, null];
    },
    read,
    showSpans,
    showPick,
    close: () => sizes.disconnect(),
  };
}
