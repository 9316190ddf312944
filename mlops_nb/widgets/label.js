// The frame of the labeling card: it hands a surface (image, text, compare, row) one item after the other, keeps what a person
// does until Python says that it is saved, and gives every action a key.
//
// A surface is made by `makeXSurface(api)` and ends its file with `export default { render: labelCard(makeXSurface) };`. Beside
// show, update, tools, keys, labelled, cancel, resized and destroy these hold:
// - `api.project.classes[].key` and `.colour` are always filled in where there are any: own key, the name if it is one character, 1 to 9.
//   `api.project.single` says whether a class excludes the others.
// - Keys are written as `Enter`, `ArrowLeft`, `Shift+ArrowLeft`, `Mod+a` (Ctrl or Cmd), `Alt+b`, a letter in lower case, ` ` for
//   the space bar, any other character as it is typed (`[`, `?`, `+`). One that nobody claims with Shift is tried without it.
//   A key comes first to what the person has remapped, then to classes, then to the surface's `keys` and `tools`, then to the
//   frame; `act(event)` of a key or tool may return false to pass it on (so Enter submits when no polygon is under way). Several
//   keys of one action: `key: ["Delete", "Backspace"]`. While the focus is in a field only keys with Mod or Alt, and Escape, count,
//   unless the field has `data-keys`. The key's release is the surface's own business (listen on its element).
// - `tools` and `keys` are read again at each update, so they may be getters. Both may have `group: "words"` for the ? sheet.
// - The frame calls `element.focus()` for `api.focus()`: give it a tabIndex, or an element in it `data-focus`.
// - `api.item()` is the item that is shown ({id, data, why, model}); `api.state()` its answer's state; `api.hidden(by)` whether a
//   reviewer has switched this person's answer off; `api.dark()` whether the theme is dark.
// - `api.act` on an answer that was submitted takes it up again first. An act that cannot be is refused with a word to the person.
// - Text fields: `missing()` of a surface (optional) returns what keeps an answer from being submitted, in words, or "".
// - `settle()` (optional) is called before submit, skip, back: record what is under way (a text that is being typed).

const WAIT = 2_000, LONGEST = 30_000; // ms until what was not acknowledged is sent again, and at most
const LATE = 8_000; // ms after which we say that nobody answers
const RENEW = 60_000; // ms between two looks at how far the others are
const REST = 30_000; // ms: a longer rest between two movements is no attention
const FEW = 200; // classes in the list at most; the search finds the others
const PICTURES = 30; // earlier pictures that are kept for going back
const ENDS = { submit: "submitted", skip: "skipped", reopen: "open", accept: "accepted", reject: "rejected" };
const CHANGES = ["draw", "move", "label", "delete", "adopt"];
const PEOPLE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#6b6b6b"];
const DEFAULTS = { source: "", score: null, crowd: false, candidate: "" };

// --- the answer as it follows from events: the same as `fold` in answers.py ---

function plainAnnotation(annotation) {
  const kept = Object.entries(annotation).filter(([key, value]) => key in DEFAULTS ? value !== DEFAULTS[key] : key !== "attributes" || Object.keys(value).length);
  return { ...Object.fromEntries(kept), label: annotation.label ?? "" };
}
function changeAnnotations(annotations, { kind, data }) {
  if (kind === "adopt") return data.annotations.map(plainAnnotation);
  if (kind === "draw") {
    const drawn = plainAnnotation(data.annotation), place = annotations.findIndex((one) => one.id === drawn.id);
    return place < 0 ? [...annotations, drawn] : annotations.map((one, n) => (n === place ? drawn : one));
  }
  if (!annotations.some((one) => one.id === data.id)) throw new Error(`${kind}: no annotation '${data.id}'.`);
  if (kind === "delete") return annotations.filter((one) => ![one.id, one.head, one.tail].includes(data.id));
  const fields = Object.fromEntries(Object.entries(data).filter(([key]) => (kind === "label" ? key === "label" : !["id", "kind", "label"].includes(key))));
  return annotations.map((one) => (one.id === data.id ? plainAnnotation({ ...one, ...fields, source: "", score: null }) : one));
}
function beginFold(start = []) {
  return { start, done: [], undone: [], comments: [], state: "open", reason: "", by: "", at: "", seconds: 0 };
}
// Take one event further; the fold before it stays as it is. Throws for a change that cannot be.
function foldEvent(fold, event) {
  const next = { ...fold, seconds: fold.seconds + (event.seconds ?? 0) }, data = event.data ?? {};
  const now = fold.done.length ? fold.done.at(-1) : fold.start;
  if (event.kind === "open" && data.annotations && fold.state === "open" && !fold.done.length && !fold.undone.length) next.start = data.annotations.map(plainAnnotation);
  else if (CHANGES.includes(event.kind)) [next.done, next.undone] = [[...fold.done, changeAnnotations(now, event)], []];
  else if (event.kind === "undo" && fold.done.length) [next.done, next.undone] = [fold.done.slice(0, -1), [...fold.undone, fold.done.at(-1)]];
  else if (event.kind === "redo" && fold.undone.length) [next.done, next.undone] = [[...fold.done, fold.undone.at(-1)], fold.undone.slice(0, -1)];
  else if (event.kind === "comment") next.comments = [...fold.comments, String(data.text ?? "")];
  else if (event.kind in ENDS) Object.assign(next, { state: ENDS[event.kind], reason: String(data.reason ?? ""), by: event.by ?? "", at: event.at ?? "" });
  return next;
}
function tellFold(fold) {
  const { start, done, undone, ...told } = fold;
  return { ...told, annotations: done.length ? done.at(-1) : start, undos: done.length, redos: undone.length };
}
function foldEvents(events, start = []) {
  return tellFold(events.reduce(foldEvent, beginFold(start)));
}

// --- small things ---

const newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join(""); // randomUUID: not on plain http
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`;
}
// How a key is written; the character itself tells Shift where it is no letter.
function chordOf(event, letter = event.key) {
  const plain = letter.length === 1 ? letter.toLowerCase() : letter, tells = letter.length === 1 && !/\p{L}/u.test(letter) && letter !== " ";
  return [(event.ctrlKey || event.metaKey) && "Mod", event.altKey && "Alt", event.shiftKey && !(tells && !event.ctrlKey && !event.metaKey && !event.altKey) && "Shift", plain].filter(Boolean).join("+");
}
// As typed, then as the key stands on a Latin keyboard, then without Shift.
function chordsOf(event) {
  const latin = /^Key([A-Z])$/.exec(event.code)?.[1] ?? /^Digit(\d)$/.exec(event.code)?.[1];
  const found = [chordOf(event)];
  if (latin && (event.altKey || !/^[\x20-\x7e]$/.test(event.key))) found.push(chordOf(event, latin.toLowerCase()));
  return [...new Set([...found, ...found.map((chord) => chord.replace("Shift+", ""))])];
}
const KEYS = { " ": "Space", ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193", Escape: "Esc" };
function keyWords(chord) {
  const mac = /Mac|iPhone|iPad/.test(navigator.platform), parts = chord === "+" ? ["+"] : chord.replace(/\+\+$/, "+Plus").split("+");
  return parts.map((part) => ({ Mod: mac ? "\u2318" : "Ctrl", ...KEYS })[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");
}

// What the browser keeps for us; where it keeps nothing (a sandboxed frame), this page's memory does.
function makeShelf(prefix) {
  const memory = new Map();
  let keeps = true;
  const attempt = (work, other) => {
    try {
      return work();
    } catch {
      keeps = false;
      return other();
    }
  };
  return {
    keeps: () => keeps,
    put: (key, value) => attempt(() => localStorage.setItem(prefix + key, JSON.stringify(value)), () => memory.set(key, value)),
    take: (key) => (memory.delete(key), attempt(() => localStorage.removeItem(prefix + key), () => {})),
    get: (key) => memory.get(key) ?? attempt(() => JSON.parse(localStorage.getItem(prefix + key)), () => null),
    keys: () => [...memory.keys(), ...attempt(() => Object.keys(localStorage).filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)), () => [])].sort(),
  };
}

// --- what is on its way to Python ---

// Events go out at once, in order. What is not acknowledged in time goes out again, all of it, ever more seldom; it outlives this page.
function makeOutbox(tell, shelf, changed) {
  const waiting = new Map(); // id -> event, in order
  let number = 0, tries = 0, sent = 0, since = 0;
  for (const key of shelf.keys()) {
    const event = shelf.get(key);
    if (event?.id) waiting.set(event.id, { ...event, key });
  }
  const strip = ({ key, ...event }) => event;
  function post(events, after) {
    sent = Date.now();
    tell({ events: events.map(strip), after });
  }
  function all() {
    if (waiting.size) post([...waiting.values()], "");
  }
  const clock = setInterval(() => {
    if (!waiting.size) return;
    if (Date.now() - sent >= Math.min(LONGEST, WAIT * 2 ** tries)) {
      tries += 1;
      all();
    }
    changed();
  }, 250);
  const back = () => waiting.size && all();
  addEventListener("online", back);
  return {
    all,
    add(event) {
      const before = [...waiting.keys()].at(-1) ?? "";
      event.key = `${Date.now().toString(36).padStart(9, "0")}${(number++ % 46_656).toString(36).padStart(3, "0")} ${event.id}`;
      if (!waiting.size) since = Date.now();
      waiting.set(event.id, event);
      shelf.put(event.key, strip(event));
      if (!tries) post([event], before);
      changed();
    },
    saved(ids) {
      for (const id of ids) {
        const event = waiting.get(id);
        if (event) shelf.take(event.key);
        waiting.delete(id);
      }
      [tries, since] = [0, Date.now()];
      changed();
    },
    of: (item) => [...waiting.values()].filter((event) => event.item === item).map(strip),
    get: (id) => waiting.get(id),
    size: () => waiting.size,
    state: () => (!waiting.size ? "saved" : !tries ? "pending" : Date.now() - since < LATE && navigator.onLine !== false ? "resending" : "offline"),
    close() {
      clearInterval(clock);
      removeEventListener("online", back);
    },
  };
}

// Attention: the time between two movements, unless somebody has gone away in between.
function makeWatch() {
  let seconds = 0, last = performance.now();
  return {
    tick() {
      const now = performance.now();
      if (now - last < REST && !document.hidden) seconds += (now - last) / 1_000;
      last = now;
    },
    awake: () => performance.now() - last < REST && !document.hidden,
    take() {
      this.tick();
      const taken = Math.round(seconds * 1_000) / 1_000;
      seconds = 0;
      return taken;
    },
  };
}

// Instructions in Markdown, as far as instructions go: headings, lists, paragraphs, bold, code.
function makeProse(text) {
  const spans = (line) => line.split(/(\*\*[^*]+\*\*|`[^`]+`)/).map((part) =>
    part.startsWith("**") && part.length > 4 ? make("b", { textContent: part.slice(2, -2) }) : part.startsWith("`") && part.length > 2 ? make("code", { textContent: part.slice(1, -1) }) : part);
  const blocks = [];
  for (const block of text.trim().split(/\n\s*\n/)) {
    let lines = [];
    const close = () => lines.length && blocks.push(make("p", {}, ...spans(lines.splice(0).join(" "))));
    for (const line of block.split("\n")) {
      const heading = /^#+\s+(.*)/.exec(line), point = /^\s*(?:[-*]|\d+\.)\s+(.*)/.exec(line);
      if (!heading && !point) {
        if (line.trim()) lines.push(line.trim());
        continue;
      }
      close();
      if (heading) blocks.push(make("h4", {}, ...spans(heading[1])));
      else if (blocks.at(-1)?.tagName === "UL") blocks.at(-1).append(make("li", {}, ...spans(point[1])));
      else blocks.push(make("ul", {}, make("li", {}, ...spans(point[1]))));
    }
    close();
  }
  return blocks;
}

let cards = 0;

function labelCard(makeSurface) {
  return ({ model, el }) => {
    const card = makeCard(model, makeSurface);
    el.append(card.root);
    card.begin();
    return card.end;
  };
}

function makeCard(model, makeSurface) {
  const own = `mlops-label-${++cards}`;
  const { project, user, role } = model.get("shown");
  const review = role === "review", readOnly = role === "read";
  const whose = review ? "" : user;
  const onlyClasses = project.kinds.length === 1 && project.kinds[0] === "class";
  const colours = new Map(project.classes.map((one) => [one.name, one.colour]));
  for (const one of project.relations) if (!colours.has(one.name)) colours.set(one.name, one.colour);
  const shelf = makeShelf(`mlops-label ${project.key} ${role} ${user} `), taste = makeShelf("mlops-label-taste ");
  const tell = (message) => {
    try {
      Promise.resolve(model.send(message)).catch(() => {});
    } catch {
      // the kernel is gone; what matters is sent again
    }
  };
  const outbox = makeOutbox(tell, shelf, () => showState());
  const watch = makeWatch();
  const trail = []; // what this page has shown, in order; the last one is the newest
  let at = -1; // where in the trail we are
  let ahead = null, asking = false, none = "", problem = "";
  let progress = model.get("shown").progress, agreement = [];
  let current = onlyClasses ? "" : project.classes[0]?.name ?? "", selected = "";
  let people = new Map(), hiddenPeople = new Set();
  let filter = "", remapping = null, surface = null, shownAt = 0;
  const gestures = new Map(); // event -> its stroke: undo takes back all of one
  const entry = () => trail[at] ?? null;
  const told = () => entry()?.told;

  // --- the frame, made once ---

  const bar = make("progress", { max: 1, value: 0, id: `${own}-progress` }), place = make("span", { className: "place" });
  const pace = make("span", { className: "pace" }), quality = make("span", { className: "quality" });
  const about = make("details", { className: "instructions" }, make("summary", { textContent: "Instructions" }), make("div", { className: "prose" }, ...makeProse([project.description, project.instructions].filter(Boolean).join("\n\n"))));
  const header = make("header", {}, make("strong", { textContent: project.name }), make("span", { className: "quiet", textContent: review ? `review by ${user}` : user }), place, bar, pace, quality);
  const toolbar = make("div", { className: "tools", role: "toolbar", ariaLabel: "Tools" });
  const stage = make("div", { className: "stage" }), rest = make("div", { className: "rest", hidden: true });
  const why = make("p", { className: "why quiet", hidden: true }), faults = make("div", { className: "faults" });
  const search = make("input", { type: "search", id: `${own}-search`, placeholder: "Find a class", autocomplete: "off", ariaLabel: "Find a class", oninput: () => ((filter = search.value.trim().toLowerCase()), showClasses()) });
  const classList = make("div", { className: "list", role: "group", ariaLabel: "Classes" }), classMore = make("p", { className: "quiet" });
  const classes = make("section", { className: "classes", ariaLabel: "Classes" }, search, classList, classMore);
  const others = make("section", { className: "others", ariaLabel: "Answers" });
  const facts = make("dl", { className: "facts" });
  const said = make("ul", { className: "said" });
  const comment = make("input", { type: "text", id: `${own}-comment`, placeholder: "Comment", ariaLabel: "Comment on this item", autocomplete: "off", maxLength: 2000 });
  const side = make("aside", { ariaLabel: "Classes and comments" }, classes, others, facts, make("section", { className: "comments", ariaLabel: "Comments" }, said, comment));
  const button = (words, act, className = "") => make("button", { type: "button", className, textContent: words, onclick: act });
  const keyed = (element, name) => (element.append(make("kbd", { "data-of": name, "aria-hidden": "true" })), element);
  const submitButton = keyed(button(review ? "Accept" : "Submit", () => submit(), "primary"), "submit");
  const skipButton = keyed(button(review ? "Drop" : "Skip", () => skip()), "skip"), backButton = keyed(button("Back", () => go(-1)), "back"), onButton = keyed(button("Forward", () => go(1)), "forward");
  const undoButton = keyed(button("Undo", () => undo()), "undo"), redoButton = keyed(button("Redo", () => redo()), "redo");
  const sheetButton = button("Keys", () => openSheet());
  sheetButton.append(make("kbd", { textContent: "?", "aria-hidden": "true" }));
  const state = make("span", { className: "saving", role: "status", "aria-live": "off", "data-state": "saved" });
  const form = make("form", { className: "answer", hidden: true });
  const footer = make("footer", {}, backButton, onButton, undoButton, redoButton, make("span", { className: "space" }), state, skipButton, submitButton);
  const spoken = make("p", { className: "spoken", role: "status" });
  const sheet = make("dialog", { className: "sheet", ariaLabel: "Keys" });
  const root = make("section", { className: "mlops-label", ariaLabel: `${review ? "review" : "label"} ${project.name}`, "data-lm-suppress-shortcuts": "true", "data-medium": project.medium, tabIndex: -1 },
    header, about, faults, make("div", { className: "body" }, make("div", { className: "work" }, toolbar, why, stage, rest), side), form, footer, spoken, sheet);
  about.hidden = !project.instructions && !project.description;
  about.open = !about.hidden && !taste.get(`read ${project.key}`); // until the first answer
  about.querySelector("summary").append(sheetButton);
  header.append(sheetButton);
  classes.hidden = !project.classes.length;
  search.hidden = project.classes.length <= 12;

  // --- the surface ---

  const api = {
    project, role, readOnly, user,
    act, newId, say, focus,
    annotations: () => (entry() ? tellFold(entry().fold).annotations : []),
    state: () => entry()?.fold.state ?? "open",
    item: () => told() ?? null,
    selected: () => selected,
    select(id) {
      if (selected === id) return;
      selected = id;
      refresh();
    },
    label: () => current,
    setLabel(name) {
      current = name;
      showClasses();
      surface?.update();
    },
    colour: (label) => colours.get(label) ?? "#7d8590",
    others: () => (told()?.others ?? []).filter((one) => !hiddenPeople.has(one.by)).map((one) => ({ ...one, colour: people.get(one.by) })),
    hidden: (by) => hiddenPeople.has(by),
    dark: () => getComputedStyle(root).colorScheme === "dark" || (getComputedStyle(root).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches),
  };

  // --- actions of the person ---

  function note(kind, data = {}, about = whose) {
    const one = entry();
    const event = { id: newId(), item: one.told.id, kind, whose: about, by: user, data, at: new Date().toISOString(), seconds: watch.take() };
    if (about === whose) {
      one.fold = foldEvent(one.fold, event); // throws before anything has happened
      one.events.push(event);
    }
    outbox.add({ ...event });
    return event;
  }
  function act(kind, data) {
    if (!entry() || readOnly) return;
    try {
      changeAnnotations(api.annotations(), { kind, data });
      if (entry().fold.state !== "open") note("reopen");
      note(kind, data);
    } catch (fault) {
      say(fault.message);
    }
    refresh();
  }
  // Several changes that are one to the person: undo takes all of them back.
  function stroke(changes) {
    const before = entry()?.events.length;
    for (const [kind, data] of changes) act(kind, data);
    const made = entry()?.events.slice(before).filter((event) => CHANGES.includes(event.kind)) ?? [];
    for (const event of made) gestures.set(event.id, made[0].id);
  }
  function strokes() { // of every change that can be undone, and of every one that can be made again
    const done = [], undone = [];
    for (const { id, kind } of entry().events) {
      if (CHANGES.includes(kind)) [undone.length] = [0, done.push(gestures.get(id) ?? id)];
      else if (kind === "undo" && done.length) undone.push(done.pop());
      else if (kind === "redo" && undone.length) done.push(undone.pop());
    }
    return { undo: done, redo: undone };
  }
  function step(kind) {
    const stack = entry() && !readOnly ? strokes()[kind] : [];
    if (!stack.length) return say(`Nothing to ${kind}.`);
    if (entry().fold.state !== "open") note("reopen");
    for (const stroke = stack.at(-1); stack.length && stack.at(-1) === stroke; stack.pop()) note(kind);
    refresh();
  }
  const undo = () => step("undo"), redo = () => step("redo");
  function toggleClass(name) {
    const there = api.annotations().filter((one) => one.kind === "class"), same = there.find((one) => one.label === name);
    if (same && !same.source) return act("delete", { id: same.id });
    const gone = project.single ? there : there.filter((one) => one.label === name);
    stroke([...gone.map((one) => ["delete", { id: one.id }]), ["draw", { annotation: { id: `class:${name}`, kind: "class", label: name } }]]);
  }
  function choose(name) {
    if (!entry() || readOnly) return;
    if (onlyClasses) return toggleClass(name);
    current = name;
    surface.labelled?.(name);
    refresh();
  }

  // What keeps the answer from being complete, in words.
  function missing() {
    if (surface.missing?.()) return surface.missing();
    if (onlyClasses && project.single && !api.annotations().length) return "Choose a class first.";
    return "";
  }
  function submit() {
    if (!entry() || readOnly) return;
    surface.settle?.();
    const lacks = missing();
    if (lacks) return say(lacks, true);
    sayComment();
    // what was agreed on and is accepted as it stands; everything else becomes final by what stands here now
    const kind = review && entry().fold.state === "submitted" ? "accept" : "submit";
    if (review ? entry().fold.state !== "accepted" : entry().fold.state !== "submitted") note(kind);
    leave();
  }
  function skip() {
    if (!entry() || readOnly) return;
    surface.settle?.();
    ask(review ? "Drop" : "Skip", review ? "why nobody can answer it; required" : "why; may stay empty", (reason) => {
      if (review && !reason) return say("Say why.", true);
      sayComment();
      note("skip", reason ? { reason } : {});
      leave();
    });
  }
  function sayComment() {
    const text = comment.value.trim();
    comment.value = "";
    if (text && entry()) note("comment", { text });
  }

  // --- from item to item ---

  function want() {
    if (asking || ahead || readOnly) return;
    asking = true;
    askedAt = Date.now();
    tell({ ask: "next", hold: trail.filter((one) => !one.left).map((one) => one.told.id) }); // what was left may come again
  }
  let askedAt = 0, renewedAt = Date.now();
  const patience = setInterval(() => {
    if (asking && Date.now() - askedAt > WAIT * 2) asking = false;
    if (!asking && !ahead && (none || problem ? Date.now() - askedAt > LONGEST : !entry())) want();
    if (entry() && watch.awake() && Date.now() - renewedAt > RENEW) tell({ ask: "progress" }, (renewedAt = Date.now())); // keeps our lease, too
    showState();
  }, 1_000);

  async function arrive(message, buffers) {
    asking = false;
    const one = { told: message, picture: null, bytes: buffers?.[0] ?? null, events: [...message.history], fold: null, left: false };
    const known = new Set(one.events.map((event) => event.id));
    one.events.push(...outbox.of(message.id).filter((event) => event.whose === whose && !known.has(event.id)));
    one.fold = one.events.reduce(foldEvent, beginFold());
    one.problem = message.problem ?? "";
    if (one.bytes) await decode(one);
    const place = trail.findIndex((other) => other.told.id === message.id);
    if (place >= 0 && !message.asked && !trail[place].left) return; // it is here, and somebody may be drawing on it
    if (place >= 0 && (message.asked || place === at)) {
      one.left = message.asked && trail[place].left;
      trail[place] = one;
      if (place === at) showItem();
      return;
    }
    if (place >= 0) trail.splice(place, 1); // it was left, and has come back: a reviewer has sent it
    if (place >= 0 && place < at) at -= 1;
    if (!entry()) {
      trail.push(one);
      at = trail.length - 1;
      showItem();
    } else ahead = one;
    none = "";
    showRest();
    if (!ahead && entry()) want();
  }
  async function decode(one) {
    try {
      one.picture = await createImageBitmap(new Blob([one.bytes]));
    } catch (fault) {
      one.problem = `This picture cannot be shown: ${fault.message}`;
    }
  }
  function leave() {
    entry().left = true;
    if (about.open && !taste.get(`read ${project.key}`)) [about.open] = [false, taste.put(`read ${project.key}`, true)];
    forward();
  }
  function forward() {
    shownAt = performance.now();
    if (at < trail.length - 1) at += 1;
    else if (ahead) {
      trail.push(ahead);
      ahead = null;
      at = trail.length - 1;
    } else at = trail.length; // nothing is here yet
    showItem();
    want();
  }
  async function go(step) {
    const to = at + step;
    if (to < 0 || to > trail.length || (to === trail.length && !ahead && step > 0)) return say(step < 0 ? "This is the first item of this session." : "This is the last item.");
    surface.settle?.();
    if (to === trail.length) return forward();
    at = to;
    const one = entry();
    if (!one.picture && one.bytes) await decode(one);
    else if (!one.picture && !one.problem && project.medium === "image") tell({ ask: "item", item: one.told.id }); // given up to save memory
    if (one === entry()) showItem();
  }
  function showItem() {
    selected = "";
    closeForm();
    const one = entry();
    trail.forEach((other, n) => {
      if (other.picture && n !== at && Math.abs(n - at) > 1) other.picture = (other.picture.close?.(), null); // pixels are big, bytes are not
      if (other.bytes && at - n > PICTURES) other.bytes = null;
    });
    showRest();
    if (!one) return refresh();
    watch.take();
    if (!readOnly && !review && !one.events.some((event) => event.kind === "open")) {
      const start = one.told.start ?? [];
      note("open", start.length ? { annotations: start } : {});
    }
    people = new Map(one.told.others.map((other, n) => [other.by, PEOPLE[n % PEOPLE.length]]));
    surface.show({ id: one.told.id, data: one.told.data, why: one.told.why, model: one.told.model }, one.picture);
    surface.cancel?.();
    refresh();
    if (root.contains(document.activeElement)) focus();
    root.dataset.item = one.told.id;
    root.dataset.took = shownAt ? (performance.now() - shownAt).toFixed(1) : "";
  }

  // --- what is seen beside the item ---

  function showRest() {
    const one = entry();
    rest.hidden = Boolean(one);
    stage.hidden = !one;
    const proposed = one?.told.model && one.events.some((event) => event.kind === "open" && event.data.annotations);
    write(why, [one?.told.why, proposed && `Begun by ${one.told.model}: what you submit is yours.`].filter(Boolean).join(" \u00b7 "));
    why.hidden = !why.textContent;
    if (!one) rest.replaceChildren(make("p", { textContent: none || problem || "The next item is on its way." }), ...(none ? [button("Look again", () => want())] : []));
    faults.replaceChildren(...[problem, one?.problem].filter(Boolean).map((text) => make("p", { className: "problem", role: "alert", textContent: text })));
  }
  const rows = new Map();
  function classRow(one) {
    if (!rows.has(one.name)) {
      const swatch = make("i", { className: "swatch", style: `--colour:${one.colour}` }), tally = make("span", { className: "tally" }), whoChose = make("span", { className: "chose" });
      const element = make("button", { type: "button", className: "class", title: one.description, onclick: () => choose(one.name) },
        swatch, make("span", { className: "name", textContent: one.name }), whoChose, tally, make("kbd", { textContent: "", "aria-hidden": "true" }));
      rows.set(one.name, { element, tally, whoChose, key: element.querySelector("kbd") });
    }
    return rows.get(one.name);
  }
  function showClasses() {
    const fit = project.classes.filter((one) => !filter || one.name.toLowerCase().includes(filter) || one.description.toLowerCase().includes(filter));
    if (filter) fit.sort((a, b) => b.name.toLowerCase().startsWith(filter) - a.name.toLowerCase().startsWith(filter));
    const chosen = new Set(onlyClasses ? api.annotations().map((one) => one.label) : [current]);
    const counts = progress?.classes ?? {}, most = Math.max(1, ...Object.values(counts));
    arrange(classList, fit.slice(0, FEW).map((one) => {
      const row = classRow(one), n = counts[one.name] ?? 0, proposed = onlyClasses && api.annotations().some((other) => other.label === one.name && other.source);
      mark(row.element, "aria-pressed", String(chosen.has(one.name)));
      row.element.classList.toggle("proposed", proposed);
      mark(row.element, "aria-label", [one.name, keysOf(`class ${one.name}`)[0] && `key ${keyWords(keysOf(`class ${one.name}`)[0])}`, proposed && "proposed by a model", n && `${n} so far`].filter(Boolean).join(", "));
      mark(row.element, "style", `--share:${((100 * n) / most).toFixed(1)}%`);
      write(row.tally, n ? n.toLocaleString("en") : "");
      write(row.key, keysOf(`class ${one.name}`).slice(0, 1).map(keyWords).join());
      row.whoChose.replaceChildren(...api.others().filter((other) => onlyClasses && other.annotations.some((a) => a.label === one.name)).map((other) => make("i", { title: other.by, style: `--colour:${other.colour}`, textContent: other.by.slice(0, 2) })));
      return row.element;
    }));
    write(classMore, fit.length > FEW ? `and ${fit.length - FEW} more: search` : fit.length ? "" : "No class is called so.");
  }
  function showProgress() {
    const { answers = 0, needed = 0, per_hour: perHour = 0, seconds_left: left = 0, mine = 0 } = progress ?? {};
    const { final = 0, items = 0, disputed = 0, review: looks = 0 } = progress ?? {}, [done, all, unit] = review ? [final, items, "final item"] : [answers, needed, "answer"];
    bar.max = Math.max(1, all);
    bar.value = done;
    write(place, `${done.toLocaleString("en")} of ${count(all, unit)}`);
    mark(bar, "aria-label", place.textContent);
    if (review) write(pace, [disputed && `${disputed.toLocaleString("en")} disputed`, looks && `${looks.toLocaleString("en")} to look at`].filter(Boolean).join(" \u00b7 "));
    else write(pace, [mine && `${mine.toLocaleString("en")} by you`, perHour && `${Math.round(perHour).toLocaleString("en")} per hour`, left && `about ${duration(left)} left`].filter(Boolean).join(" \u00b7 "));
    write(quality, agreement.slice(0, 1).map((one) => `${one.measure} ${one.value.toFixed(2)}`).join());
    mark(quality, "title", agreement.map((one) => one.words).join("\n"));
  }
  function showOthers() {
    others.hidden = !review;
    const listed = review && told() ? JSON.stringify([told().id, told().others, [...hiddenPeople]]) : "";
    if (!listed || others.dataset.listed === listed) return;
    others.dataset.listed = listed;
    const dispute = [...entry().events].reverse().find((event) => event.kind === "dispute")?.data.reason;
    others.replaceChildren(make("h4", { textContent: "Answers" }), ...(dispute ? [make("p", { className: "quiet", textContent: dispute })] : []), ...told().others.map((one, n) => {
      const eye = make("input", { type: "checkbox", checked: !hiddenPeople.has(one.by), ariaLabel: `Show the answer of ${one.by}`, onchange: () => (hiddenPeople[eye.checked ? "delete" : "add"](one.by), refresh()) });
      const take = keyed(button("Adopt", () => adopt(n)), `adopt ${n + 1}`), back = button("Reject", () => reject(n));
      take.setAttribute("aria-label", `Adopt the answer of ${one.by}`);
      back.setAttribute("aria-label", `Reject the answer of ${one.by}`);
      back.disabled = one.state !== "submitted";
      return make("div", { className: "person", style: `--colour:${people.get(one.by)}` },
        make("label", {}, eye, make("i", { className: "swatch" }), make("b", { textContent: one.by }), make("span", { className: "quiet", textContent: `${one.state}, ${count(one.annotations.length, "annotation")}` })),
        ...one.comments.map((text) => make("p", { className: "said", textContent: text })), make("div", { className: "buttons" }, take, back));
    }));
  }
  function adopt(n) {
    const one = told()?.others[n];
    if (one) act("adopt", { annotations: one.annotations.map((annotation) => ({ ...annotation })), from: one.by });
  }
  function reject(n) {
    const one = told()?.others[n];
    if (one) ask(`Reject ${one.by}`, "what is wrong; required", (reason) => {
      if (!reason) return say("Say what is wrong.", true);
      note("reject", { reason }, one.by);
      leave();
    });
  }
  function showFacts() {
    const told_ = told(), apart = { image: ["image", "width", "height"], text: ["text"], compare: ["prompt", "candidates"], row: ["row"] }[project.medium];
    const shown = told_ ? Object.entries(told_.data).filter(([key]) => !apart.includes(key)) : [];
    facts.hidden = !shown.length;
    facts.replaceChildren(...shown.flatMap(([key, value]) => [make("dt", { textContent: key }), make("dd", { textContent: typeof value === "string" ? value : JSON.stringify(value) })]));
    const comments = entry()?.fold.comments ?? [];
    said.hidden = !comments.length;
    said.replaceChildren(...comments.map((text) => make("li", { textContent: text })));
  }
  const WORDS = { submitted: "submitted", skipped: "skipped", rejected: "sent back", accepted: "accepted" };
  function showState() {
    const now = outbox.state(), n = outbox.size();
    mark(state, "data-state", now);
    write(state, { saved: WORDS[entry()?.fold.state] ? `Saved \u00b7 ${WORDS[entry().fold.state]}` : "Saved", pending: `Saving ${n}`, resending: `Not saved yet: ${count(n, "action")}. Sending again`,
      offline: `Offline: ${count(n, "action")} kept ${shelf.keeps() ? "in this browser" : "in this page only: do not close it"}, sent when the kernel answers` }[now]);
    if (now === "offline" && showState.before !== "offline") say("Nobody answers. What you do is kept and sent again. If the kernel was restarted, run the cell again.");
    if (now === "saved" && showState.before === "offline") say("Saved.");
    showState.before = now;
  }
  function showTools() {
    const tools = surface.tools ?? [];
    arrange(toolbar, tools.map((tool) => {
      const element = toolButtons.get(tool.name) ?? make("button", { type: "button", className: "tool" });
      if (!toolButtons.has(tool.name)) {
        toolButtons.set(tool.name, element);
        element.append(make("span", {}), make("kbd", { "aria-hidden": "true" }));
      }
      element.onclick = () => (tool.act(), refresh());
      write(element.firstChild, tool.words);
      write(element.lastChild, keysOf(`tool ${tool.name}`).slice(0, 1).map(keyWords).join());
      if (tool.pressed) mark(element, "aria-pressed", String(Boolean(tool.pressed())));
      return element;
    }));
    toolbar.hidden = !tools.length;
  }
  const toolButtons = new Map();
  function refresh() {
    surface.update();
    showTools();
    showClasses();
    showOthers();
    showFacts();
    showProgress();
    showState();
    const one = entry(), fold = one?.fold;
    undoButton.disabled = !fold?.done.length;
    redoButton.disabled = !fold?.undone.length;
    backButton.disabled = at <= 0;
    onButton.disabled = at >= trail.length - 1 && !(ahead && fold && fold.state !== "open");
    for (const element of [submitButton, skipButton]) element.disabled = !one;
    for (const kbd of root.querySelectorAll("kbd[data-of]")) write(kbd, keysOf(kbd.dataset.of).slice(0, 1).map(keyWords).join());
  }

  function say(text, loud = false) {
    spoken.classList.toggle("loud", loud || Boolean(text));
    write(spoken, text);
    clearTimeout(say.timer);
    say.timer = setTimeout(() => (spoken.classList.remove("loud"), write(spoken, "")), 6_000);
  }
  function focus() {
    const inner = surface.element.matches("[tabindex]") ? surface.element : surface.element.querySelector("[data-focus]");
    (inner ?? root).focus({ preventScroll: true });
  }

  // --- a short question in the card ---

  function ask(words, hint, done) {
    const reason = make("input", { type: "text", id: `${own}-reason`, placeholder: hint, autocomplete: "off", maxLength: 1000 });
    const send = make("button", { type: "submit", className: "primary", textContent: words });
    form.replaceChildren(make("label", { htmlFor: reason.id, textContent: "Reason" }), reason, send, button("Cancel", () => (closeForm(), focus())));
    form.setAttribute("aria-label", words);
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = reason.value.trim();
      done(text);
      if (form.contains(reason)) closeForm();
      focus();
    };
    form.onkeydown = (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        closeForm();
        focus();
      }
      if (event.key !== "Enter" || event.target !== reason) return;
      event.preventDefault(); // JupyterLab keeps an Enter in a cell's output from sending a form
      event.stopPropagation();
      form.requestSubmit(send);
    };
    form.hidden = false;
    reason.focus();
  }
  function closeForm() {
    form.hidden = true;
    form.replaceChildren();
  }

  // --- keys ---

  const frameKeys = [
    { name: "submit", words: review ? "Accept" : "Submit", keys: ["Enter", "Mod+Enter"], act: () => submit() },
    { name: "skip", words: review ? "Drop: nobody can answer it" : "Skip", keys: ["s", "Alt+s"], act: () => skip() },
    { name: "back", words: "Back to the item before", keys: ["b", "Alt+b"], act: () => void go(-1) },
    { name: "forward", words: "Forward again", keys: ["n", "Alt+n"], act: () => void go(1) },
    { name: "undo", words: "Undo", keys: ["Mod+z"], act: () => undo() },
    { name: "redo", words: "Redo", keys: ["Mod+Shift+z", "Mod+y"], act: () => redo() },
    { name: "comment", words: "Write a comment", keys: ["c", "Alt+c"], act: () => comment.focus() },
    { name: "search", words: "Find a class", keys: ["/", "Mod+k"], act: () => (search.hidden ? false : search.focus()) },
    { name: "instructions", words: "Instructions", keys: ["i", "Alt+i"], act: () => (about.hidden ? false : void (about.open = !about.open)) },
    { name: "keys", words: "All keys", keys: ["?"], act: () => openSheet() },
    ...(review ? [1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => ({ name: `adopt ${n}`, words: `Adopt answer ${n}`, keys: [`Alt+${n}`], act: () => adopt(n - 1) })) : []),
  ];
  const list = (keys) => (Array.isArray(keys) ? keys : keys ? [keys] : []);
  function bindings() {
    const remapped = taste.get(project.task) ?? {};
    const found = [
      ...project.classes.map((one) => ({ id: `class ${one.name}`, group: "Classes", words: one.name, keys: list(one.key), act: () => choose(one.name) })),
      ...(surface?.keys ?? []).map((one) => ({ id: `key ${one.name}`, group: one.group ?? "Drawing", words: one.words, keys: list(one.key), act: one.act })),
      ...(surface?.tools ?? []).map((one) => ({ id: `tool ${one.name}`, group: "Tools", words: one.words, keys: list(one.key), act: one.act })),
      ...frameKeys.map((one) => ({ id: one.name, group: "Items", words: one.words, keys: one.keys, act: one.act })),
    ];
    for (const one of found) if (remapped[one.id]) [one.keys, one.own] = [[remapped[one.id]], true];
    return [...found.filter((one) => one.own), ...found.filter((one) => !one.own)];
  }
  let reach = new Map(), reachAt = "";
  function keysOf(id) { // those that come to this action first
    const all = bindings(), now = JSON.stringify(all.map((one) => [one.id, one.keys]));
    if (now !== reachAt) {
      [reach, reachAt] = [new Map(), now];
      const taken = new Map();
      for (const one of all) reach.set(one.id, one.keys.filter((key) => (taken.has(key) ? key === "Enter" || key === "Escape" : taken.set(key, one.id))));
    }
    return reach.get(id) ?? [];
  }
  function onKey(event) {
    if (event.defaultPrevented || event.isComposing || sheet.open) return;
    const field = event.target.closest?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable=true]");
    if (event.key === "Escape") {
      if (field && field !== event.target.closest("[data-keys]")) focus();
      else if (!surface?.cancel?.() && selected) api.select("");
      event.stopPropagation();
      return;
    }
    if (field && !field.hasAttribute("data-keys") && !event.ctrlKey && !event.metaKey && !event.altKey) return;
    if (field && (event.ctrlKey || event.metaKey) && ["z", "y", "a", "c", "v", "x"].includes(event.key.toLowerCase())) return; // the field's own
    if (["Enter", " "].includes(event.key) && event.target.closest?.("button, summary, a, [role=radio], [role=option], input") && !event.ctrlKey && !event.metaKey) return;
    const all = bindings();
    for (const chord of chordsOf(event))
      for (const one of all)
        if (one.keys.includes(chord) && one.act(event) !== false) {
          event.preventDefault();
          event.stopPropagation();
          if (one.id.startsWith("tool ") || one.id.startsWith("key ")) showTools();
          return;
        }
  }
  comment.onkeydown = (event) => {
    if (event.key !== "Enter" || event.isComposing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    sayComment();
    refresh();
    focus();
  };
  search.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    event.stopPropagation();
    const first = classList.querySelector("button");
    if (event.key === "ArrowDown") return first?.focus();
    if (!first || !filter) return focus();
    first.click();
    search.value = filter = "";
    showClasses();
    focus();
  };
  classList.onkeydown = (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step || !event.target.matches("button")) return;
    event.preventDefault();
    event.stopPropagation();
    (event.target[step] ?? (event.key === "ArrowUp" && !search.hidden ? search : event.target)).focus();
  };

  // --- the sheet of all keys ---

  function openSheet() {
    showSheet();
    sheet.showModal();
  }
  function showSheet() {
    const groups = Map.groupBy ? Map.groupBy(bindings(), (one) => one.group) : bindings().reduce((all, one) => all.set(one.group, [...(all.get(one.group) ?? []), one]), new Map());
    const parts = ["Items", "Tools", ...groups.keys()].filter((name, n, all) => groups.has(name) && all.indexOf(name) === n).map((name) => make("section", {}, make("h4", { textContent: name }),
      make("dl", {}, ...groups.get(name).slice(0, 60).flatMap((one) => {
        const change = make("button", { type: "button", "data-id": one.id, ariaLabel: `${one.words}: ${keysOf(one.id).map(keyWords).join(" or ") || "no key"}; change`, onclick: () => remap(one, change) },
          ...(keysOf(one.id).length ? keysOf(one.id).map((key) => make("kbd", { textContent: keyWords(key) })) : [make("span", { className: "quiet", textContent: "none" })]));
        change.classList.toggle("own", Boolean(one.own));
        return [make("dt", {}, change), make("dd", { textContent: one.words })];
      }))));
    sheet.replaceChildren(make("div", { className: "head" }, make("h3", { textContent: "Keys" }), make("span", { className: "quiet", textContent: "Press one to change it." }), make("span", { className: "space" }),
      button("Reset", () => (taste.take(project.task), showSheet(), refresh())), button("Close", () => sheet.close())), make("div", { className: "groups" }, ...parts));
  }
  function remap(one, change) {
    change.replaceChildren(make("span", { textContent: "press a key" }));
    remapping = (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (["Shift", "Control", "Alt", "Meta", "AltGraph"].includes(event.key)) return;
      remapping = null;
      if (event.key !== "Escape" && event.key !== "Tab") taste.put(project.task, { ...taste.get(project.task), [one.id]: chordOf(event) });
      showSheet();
      refresh();
      sheet.querySelector(`[data-id="${CSS.escape(one.id)}"]`)?.focus();
    };
  }
  sheet.addEventListener("keydown", (event) => {
    if (remapping) return remapping(event);
    event.stopPropagation();
    if (event.key === "?" || event.key === "Escape") sheet.close();
  }, true);
  sheet.addEventListener("close", () => ((remapping = null), focus()));

  // --- news from Python ---

  function onMessage(message, buffers) {
    if (message.item) return void arrive(message.item, buffers);
    if (message.again) return outbox.all();
    if (message.saved) onSaved(message.saved);
    if (message.progress) progress = message.progress;
    if (message.agreement) agreement = message.agreement;
    if (message.others) for (const one of trail) if (one.told.id === message.of) one.told.others = message.others;
    if (message.none) [none, asking] = [message.none, false];
    if (message.problem) {
      problem = message.problem;
      if (message.ask === "next") asking = false;
    } else if (message.saved || message.item) problem = "";
    showRest();
    showProgress();
    if (message.saved || message.progress) showClasses();
  }
  function onSaved(found) {
    const refused = Object.entries(found).filter(([, words]) => words);
    const decided = review ? new Set(Object.keys(found).map((id) => outbox.get(id)).filter((event) => ["submit", "accept"].includes(event?.kind)).map((event) => event.item)) : [];
    for (const [id, words] of refused) refuse(outbox.get(id)?.item, id, words);
    outbox.saved(Object.keys(found));
    for (const item of decided) if (trail.some((one) => one.told.id === item)) tell({ ask: "item", item }); // the decision has left events of its own
    if (refused.length) refresh();
  }
  // What the store refuses has not happened: the answer is what follows from the other events.
  function refuse(item, id, words) {
    const place = trail.findIndex((one) => one.told.id === item), one = trail[place];
    say(`Not saved: ${words}`, true);
    if (!one) return;
    one.events = one.events.filter((event) => event.id !== id);
    const kept = [];
    one.fold = one.events.reduce((fold, event) => {
      try {
        const next = foldEvent(fold, event);
        kept.push(event);
        return next;
      } catch {
        return fold;
      }
    }, beginFold());
    one.events = kept;
    one.problem = `Not saved: ${words}`;
    if (place !== at && one.fold.state === "open") {
      at = place;
      showItem();
    } else showRest();
  }

  function onDown(event) {
    const pressed = event.target.closest?.("button, summary");
    if (pressed && !sheet.contains(pressed) && !form.contains(pressed)) event.preventDefault(); // the focus stays where the work is
    if (!root.contains(document.activeElement)) focus();
  }
  const moved = () => watch.tick();
  const sized = new ResizeObserver(() => surface?.resized?.());

  return {
    root,
    begin() {
      surface = makeSurface(api);
      stage.append(surface.element);
      root.addEventListener("keydown", onKey);
      root.addEventListener("mousedown", onDown);
      for (const kind of ["pointermove", "keydown", "wheel", "pointerdown"]) root.addEventListener(kind, moved, { passive: true });
      model.on("msg:custom", onMessage);
      sized.observe(stage);
      refresh();
      showRest();
      outbox.all();
      want();
    },
    end() {
      model.off("msg:custom", onMessage);
      outbox.close();
      clearInterval(patience);
      clearTimeout(say.timer);
      sized.disconnect();
      surface?.destroy?.();
    },
  };
}
