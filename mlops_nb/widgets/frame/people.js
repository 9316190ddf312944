// Who reviews sees what everybody answered: to show or hide it, to begin with it, to send it back.

const PEOPLE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#6b6b6b"];

function colourPeople(others) {
  return new Map(others.map((other, n) => [other.by, PEOPLE[n % PEOPLE.length]]));
}

function makePeople({ review, now, entry, told, say, refresh }, { note, act }, { leave }, { ask }) {
  const element = make("section", { className: "others", ariaLabel: "Answers" });

  function adopt(n) {
    const one = told()?.others[n];
    if (one) act("adopt", { annotations: one.annotations.map((annotation) => ({ ...annotation })), from: one.by });
  }
  function reject(n) {
    const one = told()?.others[n];
    if (one) ask(`Reject ${one.by}`, "what is wrong; required", (reason) => {
      if (!reason) return say("Say what is wrong.", true);
      note("reject", { reason }, one.by);
      leave();
    });
  }
  function personOf(one, n) {
    const eye = make("input", { type: "checkbox", checked: !now.hidden.has(one.by), ariaLabel: `Show the answer of ${one.by}`, onchange: () => (now.hidden[eye.checked ? "delete" : "add"](one.by), refresh()) });
    const take = keyed(button("Adopt", () => adopt(n)), `adopt ${n + 1}`), back = button("Reject", () => reject(n));
    take.setAttribute("aria-label", `Adopt the answer of ${one.by}`);
    back.setAttribute("aria-label", `Reject the answer of ${one.by}`);
    back.disabled = one.state !== "submitted";
    return make("div", { className: "person", style: `--colour:${now.people.get(one.by)}` },
      make("label", {}, eye, make("i", { className: "swatch" }), make("b", { textContent: one.by }), make("span", { className: "quiet", textContent: `${one.state}, ${count(one.annotations.length, "annotation")}` })),
      ...one.comments.map((text) => make("p", { className: "said", textContent: text })), make("div", { className: "buttons" }, take, back));
  }
  function show() {
    element.hidden = !review;
    const listed = review && told() ? JSON.stringify([told().id, told().others, [...now.hidden]]) : "";
    if (!listed || element.dataset.listed === listed) return;
    element.dataset.listed = listed;
    const dispute = [...entry().events].reverse().find((event) => event.kind === "dispute")?.data.reason;
    element.replaceChildren(make("h4", { textContent: "Answers" }), ...(dispute ? [make("p", { className: "quiet", textContent: dispute })] : []), ...told().others.map(personOf));
  }
  return { element, adopt, show };
}
