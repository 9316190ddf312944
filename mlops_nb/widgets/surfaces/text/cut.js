// How a text is counted and cut: units of JavaScript and code points of Python, lines, graphemes, tokens, sentences.

const GRAPHEMES = new Intl.Segmenter(undefined, { granularity: "grapheme" });

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
