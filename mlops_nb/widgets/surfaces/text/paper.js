// The text on the page, laid out once and never touched again: where a unit of it stands on the screen, and which unit stands there.

const PIECE = 2000; // units of one text node: a range in it is measured without walking through the whole line

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

  function selection() { // the browser's own
    const root = element.getRootNode();
    return root.getSelection ? root.getSelection() : document.getSelection();
  }
  const backwards = (unit) => getComputedStyle(pieces[find(unit)].line).direction === "rtl";
  const lineOf = (unit) => {
    const line = pieces[find(unit)].line, end = line.nextSibling ? starts.get(line.nextSibling) : text.length;
    return [starts.get(line), end];
  };
  return { element, sheet, lines, tints, picks, tags, arcs, lay, toUnit, unitAt, rects, spot, view, reveal, selection, backwards, lineOf };
}
