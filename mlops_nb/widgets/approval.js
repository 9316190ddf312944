// The approval of a model version. Python says in `shown` what is decided on; this lays it out and sends the decision.

function render({ model, el }) {
  const shown = () => model.get("shown");
  const state = make("span", { className: "state" });
  const header = make("header", {}, make("strong", { textContent: shown().model }), make("span", { textContent: shown().environment }), state);
  const facts = make("dl", {}, ...shown().facts.map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));

  const table = (caption, columns, rows) => make("table", {}, make("caption", { textContent: caption }),
    make("thead", {}, make("tr", {}, make("td"), ...columns.map((text) => make("th", { scope: "col", textContent: text })))),
    make("tbody", {}, ...rows.map(({ kind, cells: [first, ...rest] }) => make("tr", { className: kind },
      make("th", { scope: "row", textContent: first }), ...rest.map((text) => make("td", { textContent: text }))))));
  const metrics = table(`Beside ${shown().champion || "no champion yet"}`, ["candidate", "champion", "difference"],
    shown().metrics.map((one) => ({ kind: one.word, cells: [one.name, one.candidate, one.champion, `${one.difference} ${one.word}`.trim()] })));
  const checks = make("details", { open: shown().checks.some((one) => one.verdict === "failed") },
    make("summary", { textContent: `Stage report: ${shown().verdict}` }),
    table("Checks, failed ones first", ["verdict", "value", "threshold", ""],
      shown().checks.map((one) => ({ kind: one.verdict.replace(" ", "-"), cells: [one.name, one.verdict, one.value, one.threshold, one.detail] }))));
  const list = (title, texts) => (texts.length ? [make("h4", { textContent: title }), make("ul", {}, ...texts.map((text) => make("li", { textContent: text })))] : []);

  const own = `mlops-approval-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const name = make("input", { type: "text", id: `${own}-name`, autocomplete: "off", placeholder: shown().trained_by ? `not ${shown().trained_by}, who trained it` : shown().user });
  const persona = make("select", { id: `${own}-persona` },
    ...shown().personas.map((one) => make("option", { value: one, textContent: one, selected: one === shown().persona })));
  const reason = make("input", { type: "text", id: `${own}-reason`, autocomplete: "off", maxLength: 500, placeholder: "for the ledger; required to refuse" });
  const buttons = ["approve", "refuse"].map((act) => make("button", { type: "button", className: act, textContent: act[0].toUpperCase() + act.slice(1), onclick: () => decide(act) }));
  const answer = make("p", { className: "answer" }), past = make("div");
  const form = make("form", { ariaLabel: "Decision", onsubmit: (event) => event.preventDefault() },
    make("label", { htmlFor: name.id, textContent: "Name" }), name, make("label", { htmlFor: persona.id, textContent: "in the role" }), persona,
    make("label", { htmlFor: reason.id, textContent: "Reason" }), reason, make("span", { className: "buttons" }, ...buttons));

  function decide(act) {
    for (const button of buttons) button.disabled = true;
    model.send({ act, reason: reason.value, name: name.value, persona: persona.value });
  }
  function hear({ answer: told }) {
    if (!told) return;
    for (const button of buttons) button.disabled = false;
    mark(answer, "role", told.wrong ? "alert" : "status");
    answer.classList.toggle("wrong", told.wrong);
    write(answer, told.text);
  }
  function update() {
    mark(state, "data-state", shown().state);
    write(state, shown().said);
    past.replaceChildren(...list("Decisions", shown().history.map((one) => `${one.at} UTC ${one.what}. ${one.reason}`)));
  }

  el.append(make("section", { className: "mlops-approval", ariaLabel: `approval of ${shown().model}`, "data-lm-suppress-shortcuts": "true" },
    header, facts, metrics, ...list("Inputs that changed", shown().columns), checks, past, form, answer));
  update();
  model.on("change:shown", update);
  model.on("msg:custom", hear);
  return () => {
    model.off("change:shown", update);
    model.off("msg:custom", hear);
  };
}

export default { render };
