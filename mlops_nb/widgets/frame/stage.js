// Where the surface stands, with what is said above it: why this item, what is wrong; and what stands there while no item is here.

function makeStage({ now, entry }, want) {
  const stage = make("div", { className: "stage" }), rest = make("div", { className: "rest", hidden: true });
  const why = make("p", { className: "why quiet", hidden: true }), faults = make("div", { className: "faults" });
  return {
    stage, rest, why, faults,
    show() {
      const one = entry();
      rest.hidden = Boolean(one);
      stage.hidden = !one;
      const proposed = one?.told.model && one.events.some((event) => event.kind === "open" && event.data.annotations);
      write(why, [one?.told.why, proposed && `Begun by ${one.told.model}: what you submit is yours.`].filter(Boolean).join(" \u00b7 "));
      why.hidden = !why.textContent;
      if (!one) rest.replaceChildren(make("p", { textContent: now.none || now.problem || "The next item is on its way." }), ...(now.none ? [button("Look again", () => want())] : []));
      faults.replaceChildren(...[now.problem, one?.problem].filter(Boolean).map((text) => make("p", { className: "problem", role: "alert", textContent: text })));
    },
  };
}
