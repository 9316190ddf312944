// A text that somebody labels: spans, relations, tags of tokens or sentences, texts to write; for classes of the whole text it is only shown.
// JavaScript counts UTF-16 units, the annotations count code points as Python does: `counted` converts, and everything in here is in
// units until it is sent. The text is laid out once and never touched again; what is said about it is drawn on layers under and over it,
// and only for the part that is on the screen.

const GRAPHEMES = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const PIECE = 2000; // units of one text node: a range in it is measured without walking through the whole line
const LEVELS = 5; // of spans over each other that are told apart; deeper ones share the last
const STEP = 15, BAR = 3; // pixels from one level to the next, and of a level's line
const ROW = 26; // pixels of a line in the list of spans
const PAUSE = 900; // milliseconds without a key until a written text is stored
const HITS = 5000; // places that a search looks for

// --- counting and cutting ---

function counted(text) {
  if (!/[\ud800-\udfff]/.test(text)) return { points: text.length, toUnit: (point) => point, toPoint: (unit) => unit };
  const pointAt = new Int32Array(text.length + 1), unitAt = new Int32Array(text.length + 1);
  let points = 0;
  for (let unit = 0; unit < text.length; points++) {
    unitAt[points] = unit;
    const long = text.codePointAt(unit) > 0xffff ? 2 : 1; // half a pair alone is a code point, as in Python
    pointAt.fill(points, unit, unit + long);
    unit += long;
  }
  pointAt[text.length] = points;
  unitAt[points] = text.length;
  return { points, toUnit: (point) => unitAt[Math.min(point, points)], toPoint: (unit) => pointAt[unit] };
}

function cutLines(text) { // without what ends them, which the browser would show in its own ways
  const lines = [];
  let start = 0;
  for (const end of text.matchAll(/\r\n|\n|\r/g)) {
    lines.push([start, end.index]);
    start = end.index + end[0].length;
  }
  return [...lines, [start, text.length]];
}

function around(segments, unit) { // the segment that a unit is in
  const found = segments.containing(unit);
  return found && [found.index, found.index + found.segment.length];
}

function bare(text, start, end) { // without blanks at its ends, as Python strips them
  while (start < end && SPACE.test(text[start])) start++;
  while (end > start && SPACE.test(text[end - 1])) end--;
  return [start, end];
}
// The same stretch, without blanks at its ends and with no grapheme (a flag, an accented letter, an end of line) cut in two.
function snapped(text, graphemes, start, end) {
  [start, end] = bare(text, start, end);
  if (start === end) return null;
  const first = around(graphemes, start), last = around(graphemes, end - 1);
  return [first[0], last[1]];
}

// Tokens and sentences as `spans.py` cuts them, so that what is tagged here fits what is exported there; a test compares both.
const SPACE = /[^\S\ufeff]|[\x1c-\x1f\x85]/, WORD = /[\p{L}\p{N}_]/u, ALONE = /[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u{20000}-\u{10ffff}]/u;
const JOINERS = { "'": /\p{L}/u, "\u2019": /\p{L}/u, ".": /\p{Nd}/u, ",": /\p{Nd}/u };
const END = /[.!?\u2026\u3002\uff01\uff1f\u061f\u0964\u06d4]+["'\u201d\u2019\u00bb)\]]*(?=[^\S\ufeff])|[\u3002\uff01\uff1f]+[\u201d\u2019\u300d\u300f\uff09]*|\n\s*\n/gu;
const SHORT = /(?<![\p{L}\p{N}_])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Nr|No|vs|etc|cf|ca|bzw|Fig|e\.g|i\.e|z\.B|d\.h)\.$/u;

function cutTokens(text, offset = 0) {
  const found = [], plain = !/[^\x00-\x7f]/.test(text);
  const kindOf = (character) => (SPACE.test(character) ? " " : !WORD.test(character) ? "." : ALONE.test(character) ? "1" : "w");
  const at = (unit) => String.fromCodePoint(text.codePointAt(unit)), before = (unit) => at(unit - (/[\udc00-\udfff]/.test(text[unit - 1]) ? 2 : 1));
  let word = false; // whether the last token is a word that may go on
  for (const { segment, index: start } of plain ? [...text].map((segment, index) => ({ segment, index })) : GRAPHEMES.segment(text)) {
    const end = start + segment.length, kind = kindOf(at(start)), touches = word && found.at(-1)[1] === start + offset;
    const joins = touches && end < text.length ? JOINERS[segment] : null;
    if (touches && (kind === "w" || (joins?.test(before(start)) && joins.test(at(end)) && kindOf(at(end)) === "w"))) found.at(-1)[1] = end + offset;
    else if (kind !== " ") {
      found.push([start + offset, end + offset]);
      word = kind === "w";
    }
  }
  return found;
}
function cutSentences(text) {
  const found = [];
  let start = 0;
  const add = (end) => {
    const ends = bare(text, start, end);
    if (ends[0] < ends[1]) found.push(ends);
    start = end;
  };
  for (const one of text.matchAll(END)) {
    const end = one.index + one[0].length, next = text.slice(...bare(text, end, Math.min(end + 200, text.length)));
    if (one[0].includes("\n") || !(/^\p{Lowercase}/u.test(next) || SHORT.test(text.slice(Math.max(0, end - 10), end)))) add(end);
  }
  add(text.length);
  return found;
}
function firstFrom(pairs, at) { // the place of the first that begins at or after
  let low = 0, high = pairs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    pairs[middle][0] < at ? (low = middle + 1) : (high = middle);
  }
  return low;
}

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

// --- the text on the page ---

function makePaper() {
  const tints = make("div", { className: "tints", ariaHidden: "true" }), picks = make("div", { className: "picks", ariaHidden: "true" });
  const lines = make("div", { className: "lines" }), tags = make("div", { className: "tags", ariaHidden: "true" });
  const arcs = draw("svg", { class: "arcs", "aria-hidden": "true" });
  const sheet = make("div", { className: "sheet" }, tints, picks, lines, arcs, tags);
  const element = make("div", { className: "paper", tabIndex: 0 }, sheet);
  const range = document.createRange();
  let pieces = [], starts = new Map(), text = "";

  function lay(given, direction) {
    text = given;
    pieces = [];
    starts = new Map();
    const made = document.createDocumentFragment();
    for (const [start, end] of cutLines(text)) {
      const line = make("div", { className: "line", dir: direction });
      for (let from = start; from < end || from === start; ) {
        let to = Math.min(end, from + PIECE);
        if (to < end) { // at a blank where there is one, and never inside a grapheme
          const blank = text.lastIndexOf(" ", to);
          to = blank > from + PIECE / 2 ? blank + 1 : Math.max(around(GRAPHEMES.segment(text.slice(from, to + 64)), to - from)[0] + from, from + 1);
        }
        const node = document.createTextNode(text.slice(from, to));
        pieces.push({ node, line, start: from, end: to });
        starts.set(node, from);
        line.append(node);
        if (to === from) break;
        from = to;
      }
      starts.set(line, start);
      made.append(line);
    }
    if (element.scrollTop) element.scrollTop = 0; // before the new text is there, whose height would have to be known for it
    lines.replaceChildren(made);
  }

  function find(unit) { // the last piece that begins at or before it
    let low = 0, high = pieces.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      pieces[middle].start <= unit ? (low = middle) : (high = middle - 1);
    }
    return low;
  }

  function toUnit(node, offset) { // null: outside of the text
    if (starts.has(node) && node.nodeType === Node.TEXT_NODE) return starts.get(node) + offset;
    if (starts.has(node)) return offset < node.childNodes.length ? starts.get(node.childNodes[offset]) : starts.get(node) + node.textContent.length;
    if (node === lines) return offset < lines.childNodes.length ? starts.get(lines.childNodes[offset]) : text.length;
    return null;
  }

  function toNode(unit) {
    const piece = pieces[find(unit)];
    return [piece.node, Math.min(unit, piece.end) - piece.start];
  }

  function unitAt(x, y) { // of a point on the screen
    const root = element.getRootNode(), shadow = root instanceof ShadowRoot ? { shadowRoots: [root] } : {};
    const spot = document.caretPositionFromPoint?.(x, y, shadow);
    if (spot) return toUnit(spot.offsetNode, spot.offset);
    const older = document.caretRangeFromPoint?.(x, y);
    return older ? toUnit(older.startContainer, older.startOffset) : null;
  }

  // Where a stretch is on the sheet: a rectangle for each line of it and each change of direction.
  function rects(start, end) {
    const found = [];
    if (end <= start) return found;
    const origin = sheet.getBoundingClientRect();
    for (let n = find(start); n < pieces.length && pieces[n].start < end; n++) {
      const { node, start: from, end: to } = pieces[n], low = Math.max(start, from), high = Math.min(end, to);
      if (low >= high) continue;
      range.setStart(node, low - from);
      range.setEnd(node, high - from);
      for (const one of range.getClientRects()) {
        const left = one.left - origin.left, top = one.top - origin.top, last = found.at(-1);
        if (last && Math.abs(last.top - top) < 2 && Math.abs(last.left + last.width - left) < 1) last.width = left + one.width - last.left;
        else if (one.width > 0) found.push({ left, top, width: one.width, height: one.height });
      }
    }
    return found;
  }

  function spot(unit) { // where a caret before this unit stands
    const [node, offset] = toNode(unit);
    range.setStart(node, offset);
    range.collapse(true);
    const origin = sheet.getBoundingClientRect(), box = range.getClientRects()[0] ?? node.parentElement.getBoundingClientRect();
    return { left: box.left - origin.left, top: box.top - origin.top, height: box.height };
  }

  function topOf(piece) {
    return piece.line.firstChild === piece.node ? piece.line.offsetTop : spot(piece.start).top;
  }
  // What is on the screen, with a screen more above and below: units, and pixels of the sheet.
  function view() {
    const tall = element.clientHeight || 600, from = element.scrollTop - tall, to = element.scrollTop + 2 * tall;
    if (element.scrollHeight <= 3 * tall) return { first: 0, last: text.length, from: -Infinity, to: Infinity };
    const search = (limit) => {
      let low = 0, high = pieces.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        topOf(pieces[middle]) <= limit ? (low = middle + 1) : (high = middle);
      }
      return low;
    };
    const before = search(from), after = search(to);
    return { first: pieces[Math.max(0, before - 1)].start, last: after < pieces.length ? pieces[after].start : text.length, from, to };
  }

  function reveal(unit) {
    const { top, height } = spot(unit), edge = 2 * height;
    if (top - edge < element.scrollTop) element.scrollTop = top - edge;
    else if (top + height + edge > element.scrollTop + element.clientHeight) element.scrollTop = top + height + edge - element.clientHeight;
  }

  const backwards = (unit) => getComputedStyle(pieces[find(unit)].line).direction === "rtl";
  const lineOf = (unit) => {
    const line = pieces[find(unit)].line, end = line.nextSibling ? starts.get(line.nextSibling) : text.length;
    return [starts.get(line), end];
  };
  return { element, sheet, lines, tints, picks, tags, arcs, lay, toUnit, toNode, unitAt, rects, spot, view, reveal, backwards, lineOf };
}

// --- the list of spans: as many rows on the page as are seen ---

function makeSpanList(api, own) {
  const rows = make("div", { className: "rows" });
  const element = make("div", { className: "marked", role: "listbox", tabIndex: 0, ariaLabel: "Spans" }, rows);
  let listed = [];

  function drawRows() {
    const first = Math.max(0, Math.floor(element.scrollTop / ROW) - 5), last = Math.min(listed.length, first + Math.ceil((element.clientHeight || 300) / ROW) + 10);
    const selected = api.selected(), place = listed.findIndex((one) => one.id === selected);
    const seen = [...Array(last - first).keys()].map((n) => n + first);
    if (place >= 0 && (place < first || place >= last)) seen.push(place); // what is active must be on the page
    rows.style.height = `${listed.length * ROW}px`;
    rows.replaceChildren(...seen.map((n) => {
      const one = listed[n];
      const row = make("div", { className: "row", role: "option", id: `${own}-row-${n}`, title: one.note },
        make("i", { className: one.relation ? "link" : "", style: `--c: ${one.colour}` }), make("bdi", { textContent: one.words }), make("span", { className: "what", textContent: one.label }));
      row.style.top = `${n * ROW}px`;
      mark(row, "aria-selected", String(n === place));
      mark(row, "aria-setsize", String(listed.length));
      mark(row, "aria-posinset", String(n + 1));
      mark(row, "aria-label", one.name);
      row.dataset.id = one.id;
      return row;
    }));
    if (place >= 0) mark(element, "aria-activedescendant", `${own}-row-${place}`);
    else element.removeAttribute("aria-activedescendant");
  }
  function reveal(id) {
    const place = listed.findIndex((one) => one.id === id);
    if (place < 0) return;
    if (place * ROW < element.scrollTop) element.scrollTop = place * ROW;
    else if ((place + 1) * ROW > element.scrollTop + element.clientHeight) element.scrollTop = (place + 1) * ROW - element.clientHeight;
  }
  element.onscroll = () => requestAnimationFrame(drawRows);
  return {
    element,
    fill(all = listed) {
      listed = all;
      drawRows();
    },
    reveal,
    step(by) { // the id so many rows further
      const place = listed.findIndex((one) => one.id === api.selected());
      const to = by === -Infinity ? 0 : by === Infinity ? listed.length - 1 : place < 0 ? (by > 0 ? 0 : listed.length - 1) : Math.min(listed.length - 1, Math.max(0, place + by));
      return listed[to]?.id ?? "";
    },
  };
}

// --- texts that somebody writes ---

function makeFields(api, own) {
  const parts = api.project.fields.map((field, n) => {
    const area = make("textarea", { id: `${own}-field-${n}`, dir: "auto", rows: 5, spellcheck: true, readOnly: api.readOnly });
    const count = make("span", { className: "count", id: `${own}-count-${n}` }), others = make("div", { className: "written" });
    const title = make("label", { htmlFor: area.id }, field.name, field.required ? "" : make("span", { className: "quiet", textContent: " may stay empty" }));
    const about = make("p", { className: "quiet", textContent: field.description, hidden: !field.description });
    area.setAttribute("aria-describedby", count.id);
    area.required = field.required;
    const part = { field, area, count, others, kept: "", timer: 0, begun: false };
    area.oninput = () => {
      part.begun = true;
      clearTimeout(part.timer);
      part.timer = setTimeout(() => store(part), PAUSE);
      tell(part);
    };
    area.onblur = () => store(part);
    part.element = make("section", { className: "field" }, make("p", { className: "head" }, title, count), about, area, others);
    return part;
  });
  const idOf = (part) => `text:${part.field.name}`;

  function tell(part) {
    const long = counted(part.area.value).points, wrong = long > part.field.max_length;
    write(part.count, `${long.toLocaleString("en")} of ${part.field.max_length.toLocaleString("en")}${wrong ? ": too long, not stored" : ""}`);
    part.count.classList.toggle("wrong", wrong);
    mark(part.area, "aria-invalid", String(wrong));
    part.area.style.height = "auto";
    part.area.style.height = `${Math.min(part.area.scrollHeight + 2, 420)}px`;
    return !wrong;
  }
  function store(part) {
    clearTimeout(part.timer);
    const text = part.area.value;
    if (api.readOnly || !part.begun || text === part.kept || !tell(part)) return;
    const there = api.annotations().find((one) => one.id === idOf(part));
    part.kept = text;
    part.begun = false;
    if (text) api.act("draw", { annotation: { id: idOf(part), kind: "text", label: part.field.name, text } });
    else if (there) api.act("delete", { id: there.id });
  }
  return {
    first: parts[0].area,
    element: make("div", { className: "fields" }, ...parts.map((part) => part.element)),
    flush: () => parts.forEach(store),
    show(item) {
      for (const part of parts) {
        clearTimeout(part.timer);
        part.kept = "";
        part.begin = String(item.data[part.field.column] ?? "");
        part.begun = false;
        part.area.value = "";
      }
      this.update();
      for (const part of parts)
        if (!part.kept && part.begin) { // the source's text to begin with; stored as soon as somebody leaves it or submits
          part.area.value = part.begin;
          part.begun = true;
          tell(part);
        }
    },
    update() {
      for (const part of parts) {
        const there = api.annotations().find((one) => one.kind === "text" && one.label === part.field.name);
        if (!part.begun || (there?.text ?? "") !== part.kept) { // nothing of one's own is waiting, or it was undone
          part.kept = there?.text ?? "";
          part.begun = false;
          clearTimeout(part.timer);
          if (part.area.value !== part.kept) part.area.value = part.kept;
        }
        tell(part);
        part.others.replaceChildren(...api.others().flatMap((other) => other.annotations.filter((one) => one.kind === "text" && one.label === part.field.name)
          .map((one) => make("blockquote", { dir: "auto", style: `--c: ${other.colour}` }, make("b", { textContent: other.by }), " ", make("span", { textContent: one.text })))));
      }
    },
    missing: () => {
      const empty = parts.find((part) => part.field.required && !part.area.value.trim()), long = parts.find((part) => !tell(part));
      return empty ? `Write ${empty.field.name} first.` : long ? `${long.field.name} is too long: at most ${long.field.max_length.toLocaleString("en")} characters.` : "";
    },
  };
}

// --- the surface ---

let texts = 0;

function makeTextSurface(api) {
  const own = `mlops-text-${++texts}`, { project } = api;
  const spanned = project.kinds.includes("span"), tying = project.kinds.includes("relation"), tagging = project.task === "text_tagging";
  const writing = project.kinds.includes("text"), nested = project.nested && !tagging;
  const paper = makePaper(), list = makeSpanList(api, own), fields = writing ? makeFields(api, own) : null;
  const foot = make("p", { className: "foot" }), told = make("p", { className: "spoken", role: "status" }), tell = (words) => write(told, words);
  const hitCount = make("span", { className: "quiet" }), listHead = make("h4");
  const search = make("input", { type: "search", placeholder: "Search in the text", ariaLabel: "Search in the text", spellcheck: false });
  const finder = make("p", { className: "finder", hidden: true }, search, hitCount);
  const side = make("section", { className: "side", ariaLabel: "What is marked", hidden: !spanned }, listHead, list.element);
  const element = make("div", { className: `label-text${spanned ? " spans" : ""}${writing ? " writes" : ""}` },
    make("div", { className: "main" }, finder, paper.element, foot, told), side, ...(fields ? [fields.element] : []));
  mark(paper.element, "role", spanned ? "application" : "region");
  mark(paper.element, "aria-label", spanned ? "Text. Arrows choose words, Shift extends, a class's key marks them." : "Text");
  mark(fields ? fields.first : paper.element, "data-focus", "");
  mark(paper.element, "aria-describedby", (foot.id = `${own}-foot`));

  let item = null, text = "", count = counted(""), graphemes = null, tokens = [], lines = [], cutLine = [];
  let range = null; // { from: [start, end], to: [start, end] }: where it began, and where it is now; null: nothing chosen
  let cursor = 0; // where the arrows go on when nothing is chosen
  let whole = spanned && !tagging; // whether what the mouse chooses is widened to whole words
  let unit = "words"; // of tagging: words or sentences
  let tie = null; // { relation, head }: a relation under way
  let levels = 1, spans = [], seen = null, asked = 0, hits = [], dragging = false, pen = null, handle = null;

  const low = () => Math.min(range.from[0], range.to[0]), high = () => Math.max(range.from[1], range.to[1]);
  const span = (id) => spans.find((one) => one.id === id && !one.by);
  const excerpt = (start, end, most = 60) => {
    const long = end - start > most, part = text.slice(start, long ? around(graphemes, start + most)[0] : end).replace(/\s+/g, " ");
    return long ? `${part}…` : part;
  };

  // --- steps through the text ---

  function tokensOf(n) { // of a line; of the whole text where everything is tagged
    return tagging ? tokens : (cutLine[n] ??= cutTokens(text.slice(...lines[n]), lines[n][0]));
  }
  const lineAt = (at) => (tagging ? 0 : Math.max(0, firstFrom(lines, at + 1) - 1));
  const lineCount = () => (tagging ? 1 : lines.length);
  function next(at) { // the token that begins at or after
    for (let n = lineAt(at); n < lineCount(); n++) {
      const all = tokensOf(n), place = firstFrom(all, at);
      if (place < all.length) return all[place];
    }
    return null;
  }
  function previous(at) { // the token that ends at or before
    for (let n = lineAt(at); n >= 0; n--) {
      const all = tokensOf(n);
      for (let place = firstFrom(all, at) - 1; place >= 0; place--) if (all[place][1] <= at) return all[place];
    }
    return null;
  }
  function tokenNear(at) { // the one at a point, else the next, else the last
    const all = lineCount() ? tokensOf(lineAt(at)) : [], there = all[firstFrom(all, at + 1) - 1];
    return there && at < there[1] ? there : next(at) ?? previous(at);
  }

  function choose(from, to = from, silent = false) {
    range = { from, to };
    cursor = to[0];
    if (!silent) {
      paper.reveal(to[0]);
      tell(excerpt(low(), high()));
    }
    showPick();
  }
  function clear() {
    if (range) cursor = high();
    range = null;
    const selection = selected();
    if (selection?.rangeCount && paper.toUnit(selection.anchorNode, selection.anchorOffset) !== null) selection.removeAllRanges();
    showPick();
  }
  function selected() { // the browser's own selection
    const root = paper.element.getRootNode();
    return root.getSelection ? root.getSelection() : document.getSelection();
  }

  function walk(forward, extend) {
    if (extend && range) {
      const to = forward ? next(range.to[1]) : previous(range.to[0]);
      return to && choose(range.from, to);
    }
    const token = forward ? next(range ? high() : cursor) : previous(range ? low() : cursor);
    if (token) choose(token);
    else if (!range) choose(tokenNear(cursor) ?? [0, 0]);
  }
  function nudge(forward) { // the end, by one grapheme
    if (!range) return;
    const end = high(), start = low(), grapheme = forward ? end < text.length && around(graphemes, end) : around(graphemes, end - 1);
    if (!grapheme || (!forward && grapheme[0] <= start)) return;
    choose([start, forward ? grapheme[1] : grapheme[0]]);
  }
  function jump(down, extend) { // to the line above or below, at the same height of the line
    const at = range ? range.to[0] : cursor;
    paper.reveal(at);
    const here = paper.spot(at), [start, end] = range?.to ?? [at, at], box = paper.sheet.getBoundingClientRect();
    const middle = paper.rects(start, Math.min(end, start + 1))[0] ?? here, tall = parseFloat(getComputedStyle(paper.lines).lineHeight);
    for (let n = 1; n <= 3; n++) { // an empty line has no token: one further
      const found = paper.unitAt(box.left + middle.left + 1, box.top + here.top + here.height / 2 + (down ? n : -n) * tall);
      const token = found === null ? null : tokenNear(found);
      if (token && (down ? token[0] > at : token[0] < at)) return choose(extend && range ? range.from : token, token);
    }
  }
  function edge(forward, all, extend) {
    const [start, end] = all ? [0, text.length] : paper.lineOf(range ? range.to[0] : cursor);
    const token = forward ? previous(end) : next(start);
    if (token) choose(extend && range ? range.from : token, token);
  }

  // --- what a person does ---

  function refused(start, end, but = "") { // why there can be no span here
    if (nested) return "";
    const other = spans.find((one) => !one.by && one.id !== but && one.start < end && start < one.end);
    if (other) api.select(other.id);
    return other ? `This overlaps ${other.label} “${excerpt(other.start, other.end)}”, and spans of this project do not overlap.` : "";
  }

  function take(label) { // mark what is chosen
    if (api.readOnly || !range) return;
    if (!label) return api.say("Choose a class first: its key marks what is chosen.");
    const ends = snapped(text, graphemes, low(), high());
    if (!ends) return api.say("There are only blanks.");
    const [start, end] = ends, same = spans.find((one) => !one.by && one.start === start && one.end === end && (!nested || one.label === label));
    if (same) {
      if (same.label !== label) api.act("label", { id: same.id, label });
      else if (same.source) api.act("move", { id: same.id, start: same.annotation.start, end: same.annotation.end }); // a proposal that somebody confirms is theirs
      clear();
      api.select(same.id);
    } else {
      const problem = refused(start, end);
      if (problem) return api.say(problem);
      const annotation = { id: api.newId(), kind: "span", label, start: count.toPoint(start), end: count.toPoint(end) };
      clear();
      api.act("draw", { annotation });
      if (!tagging) api.select(annotation.id);
    }
    if (tagging) {
      const further = next(end);
      further ? choose(further) : api.say("That was the last one.");
    } else tell(`${label}: ${excerpt(start, end)}`);
  }

  function shift(which, forward) { // one end of the selected span, by a word or a grapheme
    const one = span(api.selected());
    if (!one || api.readOnly) return;
    let { start, end } = one;
    const to = (at) => {
      if (!whole) return forward ? (at < text.length ? around(graphemes, at)[1] : at) : at > 0 ? around(graphemes, at - 1)[0] : at;
      if (which === "end") return forward ? next(at)?.[1] ?? at : previous(previous(at)?.[0] ?? 0)?.[1] ?? at;
      return forward ? next(next(at)?.[1] ?? at)?.[0] ?? at : previous(at)?.[0] ?? at;
    };
    which === "end" ? (end = to(end)) : (start = to(start));
    resize(one, start, end);
  }
  function resize(one, start, end) {
    const ends = start < end ? snapped(text, graphemes, start, end) : null;
    if (!ends || (ends[0] === one.start && ends[1] === one.end)) return;
    const problem = refused(...ends, one.id);
    if (problem) return api.say(problem);
    api.act("move", { id: one.id, start: count.toPoint(ends[0]), end: count.toPoint(ends[1]) });
    api.select(one.id);
    tell(excerpt(...ends));
  }
  function remove() {
    if (api.readOnly) return;
    const under = tagging && range ? spans.find((one) => !one.by && one.start === low() && one.end === high())?.id : "";
    const id = under || api.selected();
    if (!api.annotations().some((one) => one.id === id)) return;
    const place = list.step(1) === id ? list.step(-1) : list.step(1);
    api.act("delete", { id });
    if (!tagging) api.select(place === id ? "" : place);
  }

  function pick(id) { // a span or a relation was pointed at
    if (tie && span(id)) return finish(id);
    clear();
    api.select(id);
    const one = span(id);
    if (one) {
      cursor = one.start;
      if (tagging) choose([one.start, one.end], undefined, true);
    }
    list.reveal(id);
  }
  function turn(forward) { // to the next annotation
    const id = list.step(forward ? 1 : -1);
    if (!id) return;
    clear();
    api.select(id);
    list.reveal(id);
    const one = span(id);
    if (one) {
      cursor = one.start;
      paper.reveal(one.start);
      tell(`${one.label}: ${excerpt(one.start, one.end)}`);
    }
  }

  // --- relations ---

  const fits = (classes, label) => !classes?.length || classes.includes(label);
  function begin(relation) {
    if (api.readOnly) return;
    const chosen = api.annotations().find((one) => one.id === api.selected());
    if (chosen?.kind === "relation") return chosen.label !== relation.name && joinable(relation, span(chosen.head), span(chosen.tail), chosen.id) && api.act("label", { id: chosen.id, label: relation.name });
    const head = span(api.selected());
    if (!head) return api.say(`Choose the span from which “${relation.name}” goes out, then press its key again.`);
    if (!fits(relation.head, head.label)) return api.say(`“${relation.name}” goes out from ${relation.head.join(" or ")}, not from ${head.label}.`);
    tie = { relation, head: head.id };
    api.say(`“${relation.name}” from ${excerpt(head.start, head.end)}: choose where it goes to, and Enter. Escape stops.`);
    paint();
  }
  function joinable(relation, head, tail, but = "") {
    let problem = "";
    if (head === tail) problem = "A relation goes from one span to another.";
    else if (!fits(relation.head, head.label)) problem = `“${relation.name}” goes out from ${relation.head.join(" or ")}, not from ${head.label}.`;
    else if (!fits(relation.tail, tail.label)) problem = `“${relation.name}” goes to ${relation.tail.join(" or ")}, not to ${tail.label}.`;
    else if (api.annotations().some((one) => one.kind === "relation" && one.id !== but && one.label === relation.name && one.head === head.id && one.tail === tail.id)) problem = "This relation is there already.";
    if (problem) api.say(problem);
    return !problem;
  }
  function finish(id) {
    const { relation, head } = tie;
    if (!joinable(relation, span(head), span(id))) return;
    const annotation = { id: api.newId(), kind: "relation", label: relation.name, head, tail: id };
    tie = null;
    api.act("draw", { annotation });
    api.select(annotation.id);
    api.say("");
    tell(`${excerpt(span(head).start, span(head).end)} ${relation.name} ${excerpt(span(id).start, span(id).end)}`);
  }

  // --- pointer: the browser selects, and what it selected is taken over ---

  function takeOver() {
    const selection = selected();
    if (!spanned || !selection || selection.isCollapsed || !selection.rangeCount) return false;
    const chosen = selection.getRangeAt(0);
    if (!paper.lines.contains(chosen.startContainer) && !paper.lines.contains(chosen.endContainer)) return false;
    const ends = snapped(text, graphemes, paper.toUnit(chosen.startContainer, chosen.startOffset) ?? 0, paper.toUnit(chosen.endContainer, chosen.endOffset) ?? text.length);
    if (ends) choose(widened(...ends), undefined, true);
    return Boolean(ends);
  }
  const widened = (start, end) => (whole || tagging ? [tokenNear(start)[0], tokenNear(end - 1)[1]] : [start, end]);
  const onSelection = () => !handle && takeOver();

  paper.element.addEventListener("pointerdown", (event) => {
    const end = event.target.dataset?.end;
    if (end && event.button === 0) {
      event.preventDefault();
      const one = span(api.selected()), rect = event.target.getBoundingClientRect();
      handle = { end, one, up: 12 + one.level * STEP, left: rect.left + rect.width / 2 - event.clientX };
      paper.element.setPointerCapture(event.pointerId);
    } else if (event.button === 0 && !event.shiftKey && !event.target.dataset?.id) {
      dragging = event.pointerType !== "touch"; // a finger chooses, and then taps a class; a mouse and a pen mark at once
      pen = event.pointerType === "pen" ? paper.unitAt(event.clientX, event.clientY) : null;
      range = null;
      showPick();
    }
  });
  // A browser scrolls where a pen is drawn over a text: it is told not to, and what the pen passes is chosen here.
  paper.element.addEventListener("pointerenter", (event) => (paper.element.style.touchAction = event.pointerType === "pen" && spanned ? "none" : ""));
  paper.element.addEventListener("pointermove", (event) => {
    if (dragging && pen !== null) {
      const at = paper.unitAt(event.clientX, event.clientY), ends = at === null ? null : snapped(text, graphemes, Math.min(pen, at), Math.max(pen, at));
      if (ends) choose(widened(...ends), undefined, true);
    }
    if (!handle) return;
    const at = paper.unitAt(event.clientX + handle.left, event.clientY - handle.up);
    if (at === null) return;
    const { one, end } = handle, stretch = end === "start" ? [Math.min(at, one.end - 1), one.end] : [one.start, Math.max(at, one.start + 1)];
    const ends = snapped(text, graphemes, ...stretch);
    if (!ends) return;
    handle.ends = widened(...ends);
    choose(handle.ends, undefined, true);
  });
  paper.element.addEventListener("pointerup", (event) => {
    if (handle) {
      const { one, ends } = handle;
      handle = null;
      clear();
      if (ends) resize(one, ...ends);
    }
    if (event.target.dataset?.id) pick(event.target.dataset.id);
  });
  paper.element.addEventListener("pointercancel", () => {
    [handle, pen, dragging] = [null, null, false];
    clear();
  });
  const onUp = (event) => { // also outside, where a drag may end
    if (!dragging || !spanned) return;
    dragging = false;
    const penned = pen !== null && range;
    pen = null;
    if (takeOver() || penned) return !tagging && !api.readOnly && api.label() && take(api.label());
    if (!paper.element.contains(event.target)) return;
    const at = paper.unitAt(event.clientX, event.clientY);
    if (at !== null) point(at, event);
  };
  paper.element.addEventListener("click", (event) => { // of a finger: no drag went before it
    if (event.pointerType !== "touch" || event.target.dataset?.id || !spanned || takeOver()) return;
    const at = paper.unitAt(event.clientX, event.clientY);
    if (at !== null) point(at, event);
  });
  function point(at, event) {
    const box = paper.sheet.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const on = (start, end) => paper.rects(start, end).some((one) => x >= one.left - 1 && x <= one.left + one.width + 1 && y >= one.top - 2 && y <= one.top + one.height + 2);
    const there = spans.filter((one) => !one.by && one.start <= at && at <= one.end && on(Math.max(one.start, at - 200), Math.min(one.end, at + 200)));
    there.sort((a, b) => a.end - a.start - (b.end - b.start));
    const place = there.findIndex((one) => one.id === api.selected());
    if (there.length && !tagging) return pick(there[(place + 1) % there.length].id); // again at the same place: the one around it
    const token = tokenNear(at);
    if (api.selected()) api.select("");
    cursor = at;
    if (token && on(...token)) choose(token, undefined, true);
    else showPick();
  }

  // --- drawing ---

  function box(name, { left, top, width, height }, colour) {
    const made = make("div", { className: name });
    made.style.cssText = `left:${left.toFixed(1)}px;top:${top.toFixed(1)}px;width:${width.toFixed(1)}px;height:${height.toFixed(1)}px;--c:${colour}`;
    return made;
  }

  let known = [], stale = true; // what was read, and whether the list says something else
  function read() { // the annotations in units, and how they lie over each other; nothing to do where only the selection moved
    const now = [api.annotations(), ...api.others().flatMap((other) => [other.by, other.annotations])];
    if (now.length === known.length && now.every((one, n) => one === known[n])) return;
    [known, stale] = [now, true];
    const of = (one, by, colour) => {
      const start = count.toUnit(one.start), end = count.toUnit(one.end);
      return { id: one.id, start, end, label: one.label, source: one.source ?? "", score: one.score, colour, by, annotation: one, level: 0 };
    };
    const plain = (annotations, by, colourOf) => stack(annotations.filter((one) => one.kind === "span").map((one) => of(one, by, colourOf(one))));
    const { sorted: mine, deepest } = plain(now[0], "", (one) => api.colour(one.label));
    spans = mine;
    let below = deepest + 1;
    for (const other of api.others()) { // everybody has lines of their own, below
      const theirs = plain(other.annotations, other.by, () => other.colour);
      for (const one of theirs.sorted) one.level += below;
      below += theirs.deepest + 1;
      spans = [...spans, ...theirs.sorted];
    }
    levels = Math.max(levels, below); // the lines move apart when they must, and not together again while somebody is at work
    const gap = `${4 + STEP * levels + (tying ? 16 : 0)}px`;
    if (paper.sheet.style.getPropertyValue("--gap") !== gap) paper.sheet.style.setProperty("--gap", gap);
  }

  function showSpans() {
    if (!spanned) return;
    seen = paper.view();
    const { first, last } = seen, tints = [], tags = [], rows = new Map(), chosen = api.selected();
    for (const one of spans) {
      if (one.end <= first || one.start >= last) continue;
      const rects = paper.rects(Math.max(one.start, first), Math.min(one.end, last)), active = one.id === chosen && !one.by;
      for (const rect of rects) {
        if (!one.by) tints.push(box(`tint${active ? " active" : ""}${tie?.head === one.id ? " head" : ""}`, { ...rect, top: rect.top - 1, height: rect.height + 2 }, one.colour));
        tints.push(box(`bar${one.source || one.by ? " guess" : ""}${active ? " active" : ""}`, { ...rect, top: rect.top + rect.height + 2 + one.level * STEP, height: BAR }, one.colour));
      }
      if (!rects.length || one.start < first) continue;
      const back = paper.backwards(one.start), rect = rects[0], top = rect.top + rect.height + 2 + BAR + one.level * STEP, key = Math.round(top);
      if (!rows.has(key)) rows.set(key, []);
      rows.get(key).push({ one, top, back, left: back ? rect.left + rect.width : rect.left, active });
    }
    const wide = paper.sheet.clientWidth;
    for (const row of rows.values()) {
      row.sort((a, b) => a.left - b.left);
      row.forEach(({ one, top, back, left, active }, n) => {
        const room = back ? left - (row[n - 1]?.left ?? 0) - 4 : (row[n + 1]?.left ?? wide) - left - 4;
        if (room < 7) return;
        const words = [one.by && `${one.by}:`, one.label, one.source && one.score != null ? `${Math.round(100 * one.score)} %` : ""].filter(Boolean).join(" ");
        const tag = make("span", { className: `tag${active ? " active" : ""}${one.source ? " guess" : ""}`, textContent: words, title: note(one) });
        tag.style.cssText = `top:${top.toFixed(1)}px;max-width:${room.toFixed(1)}px;${back ? `right:${(wide - left).toFixed(1)}px` : `left:${left.toFixed(1)}px`};--c:${one.colour}`;
        if (!one.by) tag.dataset.id = one.id;
        tags.push(tag);
      });
    }
    paper.tints.replaceChildren(...tints);
    paper.tags.replaceChildren(...tags);
    if (tying) showArcs();
  }
  const note = (one) => [one.label, one.by && `by ${one.by}`, one.source && `proposed by ${one.source}${one.score == null ? "" : `, ${Math.round(100 * one.score)} % sure`}`].filter(Boolean).join(", ");

  function showArcs() {
    const { from, to } = seen, made = [], chosen = api.selected();
    const places = new Map(), placeOf = (id) => {
      if (!places.has(id)) {
        const one = span(id), rect = one && paper.rects(one.start, Math.min(one.end, one.start + 200))[0];
        places.set(id, rect ? { x: rect.left + rect.width / 2, top: rect.top, bottom: rect.top + rect.height } : null);
      }
      return places.get(id);
    };
    for (const one of api.annotations()) {
      if (one.kind !== "relation") continue;
      const head = placeOf(one.head), tail = placeOf(one.tail);
      if (!head || !tail || (head.top < from && tail.top < from) || (head.top > to && tail.top > to)) continue;
      const active = one.id === chosen || one.head === chosen || one.tail === chosen;
      const level = Math.abs(head.top - tail.top) < 4, away = level ? 11 : Math.min(60, Math.abs(head.top - tail.top) / 2);
      const path = level ? `M${head.x} ${head.top - 2}V${head.top - away + 3}Q${head.x} ${head.top - away} ${head.x + Math.sign(tail.x - head.x) * 4} ${head.top - away}H${tail.x - Math.sign(tail.x - head.x) * 4}Q${tail.x} ${tail.top - away} ${tail.x} ${tail.top - away + 3}V${tail.top - 3}`
        : `M${head.x} ${head.top - 2}C${head.x} ${head.top - away} ${tail.x} ${tail.top - away} ${tail.x} ${tail.top - 3}`;
      const middle = level ? [(head.x + tail.x) / 2, head.top - away] : [tail.x, tail.top - 12];
      const group = draw("g", { class: `arc${active ? " active" : ""}${one.source ? " guess" : ""}` }, draw("path", { class: "thin", d: path }),
        draw("path", { class: "point", d: `M${tail.x - 3.5} ${tail.top - 6}L${tail.x} ${tail.top - 1}L${tail.x + 3.5} ${tail.top - 6}Z` }),
        draw("text", { x: middle[0].toFixed(1), y: (middle[1] + 3).toFixed(1), "text-anchor": "middle" }, one.label));
      group.dataset.id = one.id;
      made.push(group);
    }
    paper.arcs.replaceChildren(...made);
  }

  let drawn = 0;
  function showPick() { // what is chosen and what a search found; once a frame while somebody drags
    if (!drawn) drawn = requestAnimationFrame(() => {
      drawn = 0;
      const made = [], { first, last } = seen ?? paper.view();
      for (const [start, end] of hits) if (end > first && start < last) made.push(...paper.rects(start, end).map((rect) => box("hit", rect, "")));
      if (range) made.push(...paper.rects(Math.max(low(), first), Math.min(high(), last)).map((rect) => box("pick", { ...rect, top: rect.top - 2, height: rect.height + 4 }, "")));
      const one = !range && !api.readOnly && spanned && !tagging && span(api.selected());
      if (one) {
        const rects = paper.rects(one.start, one.end), back = paper.backwards(one.start);
        if (rects.length)
          for (const [end, rect, right] of [["start", rects[0], back], ["end", rects.at(-1), !back]]) {
            const grip = box("handle", { left: rect.left + (right ? rect.width : 0) - 6, top: rect.top + rect.height - 2.5 + one.level * STEP, width: 12, height: 12 }, one.colour);
            grip.dataset.end = end; // at its line, not at the text: a span can begin where another ends
            made.push(grip);
          }
      }
      paper.picks.replaceChildren(...made);
      paper.tags.querySelectorAll(".handle").forEach((old) => old.remove());
      paper.tags.append(...made.filter((part) => part.className === "handle")); // above the text, where a pointer reaches them
      tellFoot();
    });
  }

  function tellFoot() {
    const size = `${count.points.toLocaleString("en")} characters`;
    if (!spanned) return write(foot, size);
    if (tagging) {
      const starts = new Set(spans.filter((one) => !one.by).map((one) => one.start)), done = tokens.filter(([start]) => starts.has(start)).length;
      return write(foot, `${done} of ${tokens.length} ${unit} tagged${range ? ` · “${excerpt(low(), high())}”` : ""}`);
    }
    write(foot, range ? `“${excerpt(low(), high())}” ${count.toPoint(low())} to ${count.toPoint(high())}` : tie ? `${tie.relation.name}: choose where it goes to` : size);
  }

  function showList() {
    if (!stale) return list.fill();
    stale = false;
    const mine = spans.filter((one) => !one.by), rows = mine.map((one) => ({ id: one.id, start: one.start, colour: one.colour, words: excerpt(one.start, one.end), label: one.label, note: note(one),
      name: `${one.label}: ${excerpt(one.start, one.end)}, ${one.annotation.start} to ${one.annotation.end}${one.source ? ", proposed" : ""}` }));
    rows.sort((a, b) => a.start - b.start);
    const byId = new Map(spans.map((one) => [one.id, one]));
    for (const one of api.annotations()) {
      if (one.kind !== "relation") continue;
      const head = byId.get(one.head), tail = byId.get(one.tail);
      if (!head || !tail) continue;
      const words = `${excerpt(head.start, head.end, 24)} → ${excerpt(tail.start, tail.end, 24)}`;
      rows.push({ id: one.id, relation: true, colour: "currentColor", words, label: one.label, note: one.label, name: `${excerpt(head.start, head.end)} ${one.label} ${excerpt(tail.start, tail.end)}` });
    }
    const ties = rows.length - mine.length;
    write(listHead, `${mine.length} ${mine.length === 1 ? "span" : "spans"}${ties ? `, ${ties} ${ties === 1 ? "relation" : "relations"}` : ""}`);
    list.fill(rows);
  }

  function showAll() {
    cancelAnimationFrame(painted);
    painted = 0;
    if (spanned) {
      read();
      if (tie && !span(tie.head)) tie = null;
      showSpans();
      showList();
    }
    fields?.update();
    showPick();
  }
  let painted = 0;
  function paint() { // what is known is known at once; it is drawn once a frame, however much has changed
    if (!item) return;
    if (spanned) read();
    painted ||= requestAnimationFrame(showAll);
  }

  // --- search ---

  function look() {
    const words = search.value;
    hits = [];
    if (words)
      for (const found of text.matchAll(new RegExp(words.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu"))) {
        hits.push([found.index, found.index + found[0].length]);
        if (hits.length === HITS) break;
      }
    write(hitCount, words ? `${hits.length === HITS ? "more than " : ""}${hits.length} found` : "");
    if (hits.length) paper.reveal(hits[0][0]);
    showPick();
  }
  let hit = -1;
  function toHit(by) {
    if (!hits.length) return;
    hit = (hit + by + hits.length) % hits.length;
    write(hitCount, `${hit + 1} of ${hits.length}`);
    choose(hits[hit]);
  }
  function openSearch() {
    finder.hidden = false;
    search.select();
    search.focus();
  }
  function closeSearch() {
    finder.hidden = true;
    search.value = "";
    look();
    paper.element.focus();
  }
  search.oninput = () => {
    hit = -1;
    look();
  };
  search.onkeydown = (event) => {
    if (event.key === "Enter") toHit(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") closeSearch();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  // --- the list, scrolling, other sizes ---

  list.element.addEventListener("click", (event) => {
    const id = event.target.closest(".row")?.dataset.id, one = id && span(id);
    if (!id) return;
    pick(id);
    if (one) paper.reveal(one.start);
  });
  paper.arcs.addEventListener("click", (event) => {
    const id = event.target.closest("g")?.dataset.id;
    if (id) pick(id);
  });
  paper.element.addEventListener("scroll", () => {
    if (asked) return;
    asked = requestAnimationFrame(() => {
      asked = 0;
      const { scrollTop, clientHeight } = paper.element, near = clientHeight / 3; // from the edge of what is drawn
      if (!seen || ((seen.first === 0 || scrollTop - near > seen.from) && (seen.last === text.length || scrollTop + clientHeight + near < seen.to))) return;
      showSpans();
      showPick();
    });
  }, { passive: true });
  const sizes = new ResizeObserver(() => {
    seen = null;
    showSpans();
    showPick();
  });
  sizes.observe(paper.lines);
  document.addEventListener("selectionchange", onSelection);
  document.addEventListener("pointerup", onUp);

  const inList = (event) => list.element.contains(event.target);
  const arrow = (forward, extend) => (event) => walk(paper.backwards(range ? range.to[0] : cursor) && text ? !forward : forward, extend);
  const key = (name, words, combination, act) => ({ name, words, key: combination, act });
  const keys = !spanned ? [] : [
    key("next_word", tagging ? "next one" : "next word", "ArrowRight", arrow(true, false)),
    key("previous_word", tagging ? "the one before" : "word before", "ArrowLeft", arrow(false, false)),
    ...(tagging ? [] : [
      key("extend", "extend by a word", "Shift+ArrowRight", arrow(true, true)),
      key("shrink", "shrink by a word", "Shift+ArrowLeft", arrow(false, true)),
      key("extend_character", "one character more", "Mod+Shift+ArrowRight", () => nudge(true)),
      key("shrink_character", "one character less", "Mod+Shift+ArrowLeft", () => nudge(false)),
      key("extend_down", "extend by a line", "Shift+ArrowDown", () => jump(true, true)),
      key("extend_up", "shrink by a line", "Shift+ArrowUp", () => jump(false, true)),
      key("extend_home", "extend to the start of the line", "Shift+Home", () => edge(false, false, true)),
      key("extend_end", "extend to the end of the line", "Shift+End", () => edge(true, false, true)),
      key("end_further", "end of the selected span further", "Alt+ArrowRight", () => shift("end", true)),
      key("end_back", "end of the selected span back", "Alt+ArrowLeft", () => shift("end", false)),
      key("start_further", "start of the selected span further", "Alt+Shift+ArrowRight", () => shift("start", true)),
      key("start_back", "start of the selected span back", "Alt+Shift+ArrowLeft", () => shift("start", false)),
    ]),
    key("line_below", "line below", "ArrowDown", (event) => (inList(event) ? turn(true) : jump(true, false))),
    key("line_above", "line above", "ArrowUp", (event) => (inList(event) ? turn(false) : jump(false, false))),
    key("line_start", "start of the line", "Home", () => edge(false, false, false)),
    key("line_end", "end of the line", "End", () => edge(true, false, false)),
    key("text_start", "start of the text", "Mod+Home", () => edge(false, true, false)),
    key("text_end", "end of the text", "Mod+End", () => edge(true, true, false)),
    key("mark", tying ? "mark what is chosen; end a relation" : "mark what is chosen", tagging ? " " : ["Enter", " "], (event) => {
      if (tie && span(api.selected())) finish(api.selected());
      else if (range) take(api.label());
      else if (event.key === "Enter") return false; // then it submits
    }),
    key("next_span", "next span", "]", () => turn(true)),
    key("previous_span", "span before", "[", () => turn(false)),
    key("delete", "delete the selected one", ["Delete", "Backspace"], remove),
  ];
  const tools = [
    { name: "search", words: "Search", key: ["f", "Mod+f"], pressed: () => !finder.hidden, act: () => (finder.hidden ? openSearch() : closeSearch()) },
    ...(spanned && !tagging ? [{ name: "whole_words", words: "Whole words", key: "w", pressed: () => whole, act: () => api.say((whole = !whole) ? "What you choose is widened to whole words." : "What you choose is taken as it is.") }] : []),
    ...(tagging ? [{ name: "sentences", words: "Sentences", key: "u", pressed: () => unit === "sentences", act: () => (cutAll(unit === "words" ? "sentences" : "words"), paint()) }] : []),
    ...(tying ? project.relations.map((relation, n) => ({ name: `relation_${relation.name}`, words: relation.name, key: relation.key || (n ? "" : "r"), pressed: () => tie?.relation === relation, act: () => begin(relation) })) : []),
  ];

  function cutAll(chosen) { // into what is tagged, one by one
    unit = chosen;
    const given = item?.data.tokens;
    if (!tagging) tokens = [];
    else if (unit === "sentences") tokens = cutSentences(text);
    else tokens = Array.isArray(given?.[0]) ? given.map(([start, end]) => [count.toUnit(start), count.toUnit(end)]) : cutTokens(text);
    range = null;
    cursor = 0;
    if (tagging && tokens.length) choose(tokens[0], undefined, true);
  }

  return {
    element,
    tools,
    keys,
    show(given) {
      item = given;
      text = String(item.data.text ?? "");
      count = counted(text);
      lines = cutLines(text);
      cutLine = [];
      levels = 1;
      known = [];
      graphemes = GRAPHEMES.segment(text);
      [range, tie, cursor, hits, hit, seen, handle] = [null, null, 0, [], -1, null, null];
      finder.hidden = true;
      search.value = "";
      paper.lay(text, project.right_to_left === true ? "rtl" : project.right_to_left === false ? "ltr" : "auto");
      cutAll(unit);
      fields?.show(item);
      showAll();
    },
    update: paint,
    labelled(label) {
      if (!spanned || api.readOnly) return false;
      if (range) return take(label), true;
      const one = span(api.selected());
      if (!one) return false;
      if (one.label !== label) api.act("label", { id: one.id, label });
      return true;
    },
    settle: () => fields?.flush(),
    missing: () => fields?.missing() ?? "",
    cancel() {
      if (tie) return (tie = null), api.say("Stopped."), paint(), true;
      if (!finder.hidden) return closeSearch(), true;
      if (range && !tagging) return clear(), true;
      if (api.selected()) return api.select(""), true;
      return false;
    },
    resized() {
      seen = null;
      showAll();
    },
    destroy() {
      fields?.flush();
      sizes.disconnect();
      cancelAnimationFrame(painted);
      document.removeEventListener("selectionchange", onSelection);
      document.removeEventListener("pointerup", onUp);
    },
  };
}

export default { render: labelCard(makeTextSurface) };
