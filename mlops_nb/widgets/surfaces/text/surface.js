// A text that somebody labels: spans, relations, tags of tokens or sentences, texts to write; for classes of the whole text it is only shown.
// JavaScript counts UTF-16 units, the annotations count code points as Python does: `counted` converts, and everything in here is in
// units until it is sent.

let texts = 0;

function makeTextSurface(api) {
  const own = `mlops-text-${++texts}`, { kinds, task, right_to_left } = api.project;
  const spanned = kinds.includes("span"), tying = kinds.includes("relation"), tagging = task === "text_tagging", nested = api.project.nested && !tagging;
  const now = { // what is under way
    item: null, text: "", count: counted(""), graphemes: null,
    spans: [], // what is marked, by everybody, in units
    range: null, // { from: [start, end], to: [start, end] }: where it began, and where it is now; null: nothing chosen
    cursor: 0, // where the arrows go on when nothing is chosen
    whole: spanned && !tagging, // whether what the mouse chooses is widened to whole words
    unit: "words", tokens: [], // of tagging: words or sentences, and where they are
    tie: null, // { relation, head }: a relation under way
    handle: null, // of the selected span, while it is dragged
    hits: [], // what a search found
    seen: null, // the part that is drawn, as `paper.view` tells it
  };
  let painted = 0; // the frame in which we draw

  // --- elements ---

  const foot = make("p", { className: "foot", id: `${own}-foot` }), told = make("p", { className: "spoken", role: "status" });
  const paper = makePaper(), list = makeSpanList({ api, own, now, excerpt }), fields = kinds.includes("text") ? makeFields(api, own) : null;
  const base = { api, now, paper, list, foot, spanned, tying, tagging, nested, span, excerpt, low, high, tell, paint };
  const relations = makeRelations(base), drawing = makeTextDrawing(base, relations), steps = makeSteps(base, drawing);
  const marks = makeMarks(base, steps, relations), pointer = makeTextPointer(base, drawing, steps, marks), finder = makeFinder(base, drawing, steps);
  const element = make("div", { className: `label-text${spanned ? " spans" : ""}${fields ? " writes" : ""}` },
    make("div", { className: "main" }, finder.element, paper.element, foot, told), list.element, ...(fields ? [fields.element] : []));
  list.element.hidden = !spanned;
  mark(paper.element, "role", spanned ? "application" : "region");
  mark(paper.element, "aria-label", spanned ? "Text. Arrows choose words, Shift extends, a class's key marks them." : "Text");
  mark(paper.element, "aria-describedby", foot.id);
  mark(fields ? fields.first : paper.element, "data-focus", "");

  // --- what all of them ask ---

  function low() { // where what is chosen begins
    return Math.min(now.range.from[0], now.range.to[0]);
  }
  function high() {
    return Math.max(now.range.from[1], now.range.to[1]);
  }
  function span(id) {
    return now.spans.find((one) => one.id === id && !one.by);
  }
  function excerpt(start, end, most = 60) {
    const long = end - start > most, part = now.text.slice(start, long ? around(now.graphemes, start + most)[0] : end).replace(/\s+/g, " ");
    return long ? `${part}…` : part;
  }
  function tell(words) { // to those who do not see it
    write(told, words);
  }

  function showAll() {
    cancelAnimationFrame(painted);
    painted = 0;
    if (spanned) {
      drawing.read();
      if (now.tie && !span(now.tie.head)) now.tie = null;
      drawing.showSpans();
      list.show();
    }
    fields?.update();
    drawing.showPick();
  }
  function paint() { // what is known is known at once; it is drawn once a frame, however much has changed
    if (!now.item) return;
    if (spanned) drawing.read();
    painted ||= requestAnimationFrame(showAll);
  }

  return {
    element,
    tools: textTools(base, steps, relations, finder),
    keys: textKeys(base, steps, marks, relations),
    show(item) {
      const text = String(item.data.text ?? "");
      Object.assign(now, { item, text, count: counted(text), graphemes: GRAPHEMES.segment(text), tie: null, handle: null });
      drawing.begin();
      finder.begin();
      paper.lay(text, right_to_left === true ? "rtl" : right_to_left === false ? "ltr" : "auto");
      steps.begin();
      fields?.show(item);
      showAll();
    },
    update: paint,
    labelled(label) {
      if (!spanned || api.readOnly) return false;
      if (now.range) return marks.take(label), true;
      const one = span(api.selected());
      if (!one) return false;
      if (one.label !== label) api.act("label", { id: one.id, label });
      return true;
    },
    settle: () => fields?.flush(),
    missing: () => fields?.missing() ?? "",
    cancel() {
      if (now.tie) {
        now.tie = null;
        api.say("Stopped.");
        paint();
      } else if (finder.isOpen()) finder.close();
      else if (now.range && !tagging) steps.clear();
      else if (api.selected()) api.select("");
      else return false;
      return true;
    },
    resized() {
      now.seen = null;
      showAll();
    },
    destroy() {
      fields?.flush();
      drawing.close();
      pointer.close();
      cancelAnimationFrame(painted);
    },
  };
}

export default { render: labelCard(makeTextSurface) };
