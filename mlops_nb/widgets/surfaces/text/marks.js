// What a person does to the annotations: mark what is chosen, move a span's ends, delete, go from one to the next.

function makeMarks({ api, now, paper, list, nested, tagging, span, excerpt, low, high, tell }, { next, previous, choose, clear }, { finish }) {
  function refused(start, end, but = "") { // why there can be no span here
    if (nested) return "";
    const other = now.spans.find((one) => !one.by && one.id !== but && one.start < end && start < one.end);
    if (other) api.select(other.id);
    return other ? `This overlaps ${other.label} “${excerpt(other.start, other.end)}”, and spans of this project do not overlap.` : "";
  }
  function take(label) { // mark what is chosen
    if (api.readOnly || !now.range) return;
    if (!label) return api.say("Choose a class first: its key marks what is chosen.");
    const ends = snapped(now.text, now.graphemes, low(), high());
    if (!ends) return api.say("There are only blanks.");
    const [start, end] = ends, same = now.spans.find((one) => !one.by && one.start === start && one.end === end && (!nested || one.label === label));
    if (same) {
      if (same.label !== label) api.act("label", { id: same.id, label });
      else if (same.source) api.act("move", { id: same.id, start: same.annotation.start, end: same.annotation.end }); // a proposal that somebody confirms is theirs
      clear();
      api.select(same.id);
    } else {
      const problem = refused(start, end);
      if (problem) return api.say(problem);
      const annotation = { id: api.newId(), kind: "span", label, start: now.count.toPoint(start), end: now.count.toPoint(end) };
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
      if (!now.whole) return forward ? (at < now.text.length ? around(now.graphemes, at)[1] : at) : at > 0 ? around(now.graphemes, at - 1)[0] : at;
      if (which === "end") return forward ? next(at)?.[1] ?? at : previous(previous(at)?.[0] ?? 0)?.[1] ?? at;
      return forward ? next(next(at)?.[1] ?? at)?.[0] ?? at : previous(at)?.[0] ?? at;
    };
    which === "end" ? (end = to(end)) : (start = to(start));
    resize(one, start, end);
  }
  function resize(one, start, end) {
    const ends = start < end ? snapped(now.text, now.graphemes, start, end) : null;
    if (!ends || (ends[0] === one.start && ends[1] === one.end)) return;
    const problem = refused(...ends, one.id);
    if (problem) return api.say(problem);
    api.act("move", { id: one.id, start: now.count.toPoint(ends[0]), end: now.count.toPoint(ends[1]) });
    api.select(one.id);
    tell(excerpt(...ends));
  }
  function remove() {
    if (api.readOnly) return;
    const under = tagging && now.range ? now.spans.find((one) => !one.by && one.start === low() && one.end === high())?.id : "";
    const id = under || api.selected();
    if (!api.annotations().some((one) => one.id === id)) return;
    const place = list.step(1) === id ? list.step(-1) : list.step(1);
    api.act("delete", { id });
    if (!tagging) api.select(place === id ? "" : place);
  }

  function pick(id) { // a span or a relation was pointed at
    if (now.tie && span(id)) return finish(id);
    clear();
    api.select(id);
    const one = span(id);
    if (one) {
      now.cursor = one.start;
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
      now.cursor = one.start;
      paper.reveal(one.start);
      tell(`${one.label}: ${excerpt(one.start, one.end)}`);
    }
  }

  return { take, shift, resize, remove, pick, turn };
}
