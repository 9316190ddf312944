// Relations: from a span that is chosen, by the relation's key, to another one; drawn as arcs over the text.

function makeRelations({ api, now, paper, span, excerpt, tell, paint }) {
  const fits = (classes, label) => !classes?.length || classes.includes(label);
  function begin(relation) {
    if (api.readOnly) return;
    const chosen = api.annotations().find((one) => one.id === api.selected());
    if (chosen?.kind === "relation") return chosen.label !== relation.name && joinable(relation, span(chosen.head), span(chosen.tail), chosen.id) && api.act("label", { id: chosen.id, label: relation.name });
    const head = span(api.selected());
    if (!head) return api.say(`Choose the span from which “${relation.name}” goes out, then press its key again.`);
    if (!fits(relation.head, head.label)) return api.say(`“${relation.name}” goes out from ${relation.head.join(" or ")}, not from ${head.label}.`);
    now.tie = { relation, head: head.id };
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
    const { relation, head } = now.tie;
    if (!joinable(relation, span(head), span(id))) return;
    const annotation = { id: api.newId(), kind: "relation", label: relation.name, head, tail: id };
    now.tie = null;
    api.act("draw", { annotation });
    api.select(annotation.id);
    api.say("");
    tell(`${excerpt(span(head).start, span(head).end)} ${relation.name} ${excerpt(span(id).start, span(id).end)}`);
  }

  function showArcs() { // those that are on the screen
    const { from, to } = now.seen, made = [], chosen = api.selected();
    const places = new Map(), placeOf = (id) => {
      if (!places.has(id)) {
        const one = span(id), rect = one && paper.rects(one.start, Math.min(one.end, one.start + 200))[0];
        places.set(id, rect ? { x: rect.left + rect.width / 2, top: rect.top } : null);
      }
      return places.get(id);
    };
    for (const one of api.annotations()) {
      if (one.kind !== "relation") continue;
      const head = placeOf(one.head), tail = placeOf(one.tail);
      if (!head || !tail || (head.top < from && tail.top < from) || (head.top > to && tail.top > to)) continue;
      made.push(arc(one, head, tail, one.id === chosen || one.head === chosen || one.tail === chosen));
    }
    paper.arcs.replaceChildren(...made);
  }
  function arc(one, head, tail, active) {
    const level = Math.abs(head.top - tail.top) < 4, away = level ? 11 : Math.min(60, Math.abs(head.top - tail.top) / 2);
    const path = level ? `M${head.x} ${head.top - 2}V${head.top - away + 3}Q${head.x} ${head.top - away} ${head.x + Math.sign(tail.x - head.x) * 4} ${head.top - away}H${tail.x - Math.sign(tail.x - head.x) * 4}Q${tail.x} ${tail.top - away} ${tail.x} ${tail.top - away + 3}V${tail.top - 3}`
      : `M${head.x} ${head.top - 2}C${head.x} ${head.top - away} ${tail.x} ${tail.top - away} ${tail.x} ${tail.top - 3}`;
    const middle = level ? [(head.x + tail.x) / 2, head.top - away] : [tail.x, tail.top - 12];
    const group = draw("g", { class: `arc${active ? " active" : ""}${one.source ? " guess" : ""}` }, draw("path", { class: "thin", d: path }),
      draw("path", { class: "point", d: `M${tail.x - 3.5} ${tail.top - 6}L${tail.x} ${tail.top - 1}L${tail.x + 3.5} ${tail.top - 6}Z` }),
      draw("text", { x: middle[0].toFixed(1), y: (middle[1] + 3).toFixed(1), "text-anchor": "middle" }, one.label));
    group.dataset.id = one.id;
    return group;
  }

  return { begin, finish, showArcs };
}
