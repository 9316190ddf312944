// What is chosen in a text, and the steps from token to token, line to line, end to end.

function makeSteps({ now, paper, tagging, excerpt, low, high, tell }, { showPick }) {
  let lines = [], cutLine = []; // where they are; the tokens of each that somebody came to

  function cut(unit) { // into what is tagged, one by one
    const given = now.item?.data.tokens;
    now.unit = unit;
    if (!tagging) now.tokens = [];
    else if (unit === "sentences") now.tokens = cutSentences(now.text);
    else now.tokens = Array.isArray(given?.[0]) ? given.map(([start, end]) => [now.count.toUnit(start), now.count.toUnit(end)]) : cutTokens(now.text);
    [now.range, now.cursor] = [null, 0];
    if (now.tokens.length) choose(now.tokens[0], undefined, true);
  }
  function begin() { // with another text
    [lines, cutLine] = [cutLines(now.text), []];
    cut(now.unit);
  }

  function tokensOf(n) { // of a line; of the whole text where everything is tagged
    return tagging ? now.tokens : (cutLine[n] ??= cutTokens(now.text.slice(...lines[n]), lines[n][0]));
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
  const widened = (start, end) => (now.whole || tagging ? [tokenNear(start)[0], tokenNear(end - 1)[1]] : [start, end]);

  function choose(from, to = from, silent = false) {
    [now.range, now.cursor] = [{ from, to }, to[0]];
    if (!silent) {
      paper.reveal(to[0]);
      tell(excerpt(low(), high()));
    }
    showPick();
  }
  function clear() {
    if (now.range) now.cursor = high();
    now.range = null;
    const selection = paper.selection();
    if (selection?.rangeCount && paper.toUnit(selection.anchorNode, selection.anchorOffset) !== null) selection.removeAllRanges();
    showPick();
  }

  function walk(forward, extend) {
    if (extend && now.range) {
      const to = forward ? next(now.range.to[1]) : previous(now.range.to[0]);
      return to && choose(now.range.from, to);
    }
    const token = forward ? next(now.range ? high() : now.cursor) : previous(now.range ? low() : now.cursor);
    if (token) choose(token);
    else if (!now.range) choose(tokenNear(now.cursor) ?? [0, 0]);
  }
  function nudge(forward) { // the end, by one grapheme
    if (!now.range) return;
    const end = high(), start = low(), grapheme = forward ? end < now.text.length && around(now.graphemes, end) : around(now.graphemes, end - 1);
    if (!grapheme || (!forward && grapheme[0] <= start)) return;
    choose([start, forward ? grapheme[1] : grapheme[0]]);
  }
  function jump(down, extend) { // to the line above or below, at the same height of the line
    const at = now.range ? now.range.to[0] : now.cursor;
    paper.reveal(at);
    const here = paper.spot(at), [start, end] = now.range?.to ?? [at, at], box = paper.sheet.getBoundingClientRect();
    const middle = paper.rects(start, Math.min(end, start + 1))[0] ?? here, tall = parseFloat(getComputedStyle(paper.lines).lineHeight);
    for (let n = 1; n <= 3; n++) { // an empty line has no token: one further
      const found = paper.unitAt(box.left + middle.left + 1, box.top + here.top + here.height / 2 + (down ? n : -n) * tall);
      const token = found === null ? null : tokenNear(found);
      if (token && (down ? token[0] > at : token[0] < at)) return choose(extend && now.range ? now.range.from : token, token);
    }
  }
  function edge(forward, all, extend) {
    const [start, end] = all ? [0, now.text.length] : paper.lineOf(now.range ? now.range.to[0] : now.cursor);
    const token = forward ? previous(end) : next(start);
    if (token) choose(extend && now.range ? now.range.from : token, token);
  }

  return { begin, cut, next, previous, tokenNear, widened, choose, clear, walk, nudge, jump, edge };
}
