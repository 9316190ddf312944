// Mouse, pen and finger: the browser selects, and what it selected is taken over.

function makeTextPointer({ api, now, paper, list, spanned, tagging, span }, { showPick }, { tokenNear, widened, choose, clear }, { take, resize, pick }) {
  let dragging = false, pen = null; // pen: the unit from which one is drawn

  function takeOver() {
    const selection = paper.selection();
    if (!spanned || !selection || selection.isCollapsed || !selection.rangeCount) return false;
    const chosen = selection.getRangeAt(0);
    if (!paper.lines.contains(chosen.startContainer) && !paper.lines.contains(chosen.endContainer)) return false;
    const ends = between(paper.toUnit(chosen.startContainer, chosen.startOffset) ?? 0, paper.toUnit(chosen.endContainer, chosen.endOffset) ?? now.text.length);
    if (ends) choose(widened(...ends), undefined, true);
    return Boolean(ends);
  }
  function between(start, end) {
    return snapped(now.text, now.graphemes, start, end);
  }
  function down(event) {
    const end = event.target.dataset?.end;
    if (end && event.button === 0) {
      event.preventDefault();
      const one = span(api.selected()), rect = event.target.getBoundingClientRect();
      now.handle = { end, one, up: 12 + one.level * STEP, left: rect.left + rect.width / 2 - event.clientX };
      paper.element.setPointerCapture(event.pointerId);
    } else if (event.button === 0 && !event.shiftKey && !event.target.dataset?.id) {
      dragging = event.pointerType !== "touch"; // a finger chooses, and then taps a class; a mouse and a pen mark at once
      pen = event.pointerType === "pen" ? paper.unitAt(event.clientX, event.clientY) : null;
      now.range = null;
      showPick();
    }
  }
  function move(event) {
    if (dragging && pen !== null) {
      const at = paper.unitAt(event.clientX, event.clientY), ends = at === null ? null : between(Math.min(pen, at), Math.max(pen, at));
      if (ends) choose(widened(...ends), undefined, true);
    }
    if (!now.handle) return;
    const at = paper.unitAt(event.clientX + now.handle.left, event.clientY - now.handle.up);
    if (at === null) return;
    const { one, end } = now.handle, ends = end === "start" ? between(Math.min(at, one.end - 1), one.end) : between(one.start, Math.max(at, one.start + 1));
    if (!ends) return;
    now.handle.ends = widened(...ends);
    choose(now.handle.ends, undefined, true);
  }
  function up(event) {
    if (now.handle) {
      const { one, ends } = now.handle;
      now.handle = null;
      clear();
      if (ends) resize(one, ...ends);
    }
    if (event.target.dataset?.id) pick(event.target.dataset.id);
  }
  function upAnywhere(event) { // also outside, where a drag may end
    if (!dragging || !spanned) return;
    dragging = false;
    const penned = pen !== null && now.range;
    pen = null;
    if (takeOver() || penned) return !tagging && !api.readOnly && api.label() && take(api.label());
    if (paper.element.contains(event.target)) point(event);
  }
  function point(event) {
    const at = paper.unitAt(event.clientX, event.clientY);
    if (at === null) return;
    const box = paper.sheet.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const on = (start, end) => paper.rects(start, end).some((one) => x >= one.left - 1 && x <= one.left + one.width + 1 && y >= one.top - 2 && y <= one.top + one.height + 2);
    const there = now.spans.filter((one) => !one.by && one.start <= at && at <= one.end && on(Math.max(one.start, at - 200), Math.min(one.end, at + 200)));
    there.sort((a, b) => a.end - a.start - (b.end - b.start));
    const place = there.findIndex((one) => one.id === api.selected());
    if (there.length && !tagging) return pick(there[(place + 1) % there.length].id); // again at the same place: the one around it
    const token = tokenNear(at);
    if (api.selected()) api.select("");
    now.cursor = at;
    if (token && on(...token)) choose(token, undefined, true);
    else showPick();
  }

  paper.element.addEventListener("pointerdown", down);
  // A browser scrolls where a pen is drawn over a text: it is told not to, and what the pen passes is chosen here.
  paper.element.addEventListener("pointerenter", (event) => (paper.element.style.touchAction = event.pointerType === "pen" && spanned ? "none" : ""));
  paper.element.addEventListener("pointermove", move);
  paper.element.addEventListener("pointerup", up);
  paper.element.addEventListener("pointercancel", () => {
    [now.handle, pen, dragging] = [null, null, false];
    clear();
  });
  paper.element.addEventListener("click", (event) => { // of a finger: no drag went before it
    if (event.pointerType === "touch" && !event.target.dataset?.id && spanned && !takeOver()) point(event);
  });
  paper.arcs.addEventListener("click", (event) => {
    const id = event.target.closest("g")?.dataset.id;
    if (id) pick(id);
  });
  list.box.addEventListener("click", (event) => {
    const id = event.target.closest(".row")?.dataset.id, one = id && span(id);
    if (!id) return;
    pick(id);
    if (one) paper.reveal(one.start);
  });
  const onSelection = () => !now.handle && takeOver();
  document.addEventListener("selectionchange", onSelection);
  document.addEventListener("pointerup", upAnywhere);
  return {
    close() {
      document.removeEventListener("selectionchange", onSelection);
      document.removeEventListener("pointerup", upAnywhere);
    },
  };
}
