// The classes: how often each was chosen, its key, and who has chosen it here; a search where there are many.

const FEW = 200; // classes in the list at most; the search finds the others

function makeClasses({ own, project, readOnly, onlyClasses, now, entry, annotations, others, keyOf, focus, refresh }, { act, stroke }) {
  const search = make("input", { type: "search", id: `${own}-search`, placeholder: "Find a class", autocomplete: "off", ariaLabel: "Find a class", oninput: () => ((filter = search.value.trim().toLowerCase()), show()) });
  const list = make("div", { className: "list", role: "group", ariaLabel: "Classes" }), more = make("p", { className: "quiet" });
  const element = make("section", { className: "classes", ariaLabel: "Classes" }, search, list, more);
  const rows = new Map();
  let filter = "";
  element.hidden = !project.classes.length;
  search.hidden = project.classes.length <= 12;

  function toggle(name) {
    const there = annotations().filter((one) => one.kind === "class"), same = there.find((one) => one.label === name);
    if (same && !same.source) return act("delete", { id: same.id });
    const gone = project.single ? there : there.filter((one) => one.label === name);
    stroke([...gone.map((one) => ["delete", { id: one.id }]), ["draw", { annotation: { id: `class:${name}`, kind: "class", label: name } }]]);
  }
  function choose(name) {
    if (!entry() || readOnly) return;
    if (onlyClasses) return toggle(name);
    now.current = name;
    now.surface.labelled?.(name);
    refresh();
  }

  function rowOf(one) {
    if (!rows.has(one.name)) {
      const swatch = make("i", { className: "swatch", style: `--colour:${one.colour}` }), tally = make("span", { className: "tally" }), whoChose = make("span", { className: "chose" });
      const row = make("button", { type: "button", className: "class", title: one.description, onclick: () => choose(one.name) },
        swatch, make("span", { className: "name", textContent: one.name }), whoChose, tally, make("kbd", { textContent: "", "aria-hidden": "true" }));
      rows.set(one.name, { element: row, tally, whoChose, key: row.querySelector("kbd") });
    }
    return rows.get(one.name);
  }
  function showRow(one, pressed, n, most) {
    const row = rowOf(one), key = keyOf(`class ${one.name}`), proposed = onlyClasses && annotations().some((other) => other.label === one.name && other.source);
    mark(row.element, "aria-pressed", String(pressed));
    row.element.classList.toggle("proposed", proposed);
    mark(row.element, "aria-label", [one.name, key && `key ${key}`, proposed && "proposed by a model", n && `${n} so far`].filter(Boolean).join(", "));
    mark(row.element, "style", `--share:${((100 * n) / most).toFixed(1)}%`);
    write(row.tally, n ? n.toLocaleString("en") : "");
    write(row.key, key);
    row.whoChose.replaceChildren(...others().filter((other) => onlyClasses && other.annotations.some((a) => a.label === one.name)).map((other) => make("i", { title: other.by, style: `--colour:${other.colour}`, textContent: other.by.slice(0, 2) })));
    return row.element;
  }
  function show() {
    const fit = project.classes.filter((one) => !filter || one.name.toLowerCase().includes(filter) || one.description.toLowerCase().includes(filter));
    if (filter) fit.sort((a, b) => b.name.toLowerCase().startsWith(filter) - a.name.toLowerCase().startsWith(filter));
    const chosen = new Set(onlyClasses ? annotations().map((one) => one.label) : [now.current]);
    const counts = now.progress?.classes ?? {}, most = Math.max(1, ...Object.values(counts));
    arrange(list, fit.slice(0, FEW).map((one) => showRow(one, chosen.has(one.name), counts[one.name] ?? 0, most)));
    write(more, fit.length > FEW ? `and ${fit.length - FEW} more: search` : fit.length ? "" : "No class is called so.");
  }

  search.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    event.stopPropagation();
    const first = list.querySelector("button");
    if (event.key === "ArrowDown") return first?.focus();
    if (!first || !filter) return focus();
    first.click();
    search.value = filter = "";
    show();
    focus();
  };
  list.onkeydown = (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step || !event.target.matches("button")) return;
    event.preventDefault();
    event.stopPropagation();
    (event.target[step] ?? (event.key === "ArrowUp" && !search.hidden ? search : event.target)).focus();
  };
  return { element, choose, show, find: () => (search.hidden ? false : search.focus()) };
}
