// The list of what is marked: as many rows on the page as are seen, however many there are.

const ROW = 26; // pixels of a line in it

function noteOf(one) { // what is known of a span, in words
  return [one.label, one.by && `by ${one.by}`, one.source && `proposed by ${one.source}${one.score == null ? "" : `, ${Math.round(100 * one.score)} % sure`}`].filter(Boolean).join(", ");
}

function makeSpanList({ api, own, now, excerpt }) {
  const heading = make("h4"), rows = make("div", { className: "rows" });
  const box = make("div", { className: "marked", role: "listbox", tabIndex: 0, ariaLabel: "Spans" }, rows);
  let listed = [], listedOf = null; // the rows, and the spans that they were made of

  function listAll() {
    if (listedOf === now.spans) return;
    listedOf = now.spans;
    const mine = now.spans.filter((one) => !one.by), byId = new Map(now.spans.map((one) => [one.id, one]));
    listed = mine.map((one) => ({ id: one.id, start: one.start, colour: one.colour, words: excerpt(one.start, one.end), label: one.label, note: noteOf(one),
      name: `${one.label}: ${excerpt(one.start, one.end)}, ${one.annotation.start} to ${one.annotation.end}${one.source ? ", proposed" : ""}` }));
    listed.sort((a, b) => a.start - b.start);
    for (const one of api.annotations()) {
      if (one.kind !== "relation") continue;
      const head = byId.get(one.head), tail = byId.get(one.tail);
      if (!head || !tail) continue;
      const words = `${excerpt(head.start, head.end, 24)} → ${excerpt(tail.start, tail.end, 24)}`;
      listed.push({ id: one.id, relation: true, colour: "currentColor", words, label: one.label, note: one.label, name: `${excerpt(head.start, head.end)} ${one.label} ${excerpt(tail.start, tail.end)}` });
    }
    const ties = listed.length - mine.length;
    write(heading, `${mine.length} ${mine.length === 1 ? "span" : "spans"}${ties ? `, ${ties} ${ties === 1 ? "relation" : "relations"}` : ""}`);
  }
  function drawRows() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5), last = Math.min(listed.length, first + Math.ceil((box.clientHeight || 300) / ROW) + 10);
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
    if (place >= 0) mark(box, "aria-activedescendant", `${own}-row-${place}`);
    else box.removeAttribute("aria-activedescendant");
  }
  box.onscroll = () => requestAnimationFrame(drawRows);
  return {
    box,
    element: make("section", { className: "side", ariaLabel: "What is marked" }, heading, box),
    show() {
      listAll();
      drawRows();
    },
    reveal(id) {
      listAll();
      const place = listed.findIndex((one) => one.id === id);
      if (place < 0) return;
      if (place * ROW < box.scrollTop) box.scrollTop = place * ROW;
      else if ((place + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (place + 1) * ROW - box.clientHeight;
    },
    step(by) { // the id so many rows further, also of what is not drawn yet
      listAll();
      const place = listed.findIndex((one) => one.id === api.selected());
      const to = place < 0 ? (by > 0 ? 0 : listed.length - 1) : Math.min(listed.length - 1, Math.max(0, place + by));
      return listed[to]?.id ?? "";
    },
  };
}
