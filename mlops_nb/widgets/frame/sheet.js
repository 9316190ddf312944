// The sheet of all keys; pressing one there changes it.

function makeSheet({ project, taste, focus, refresh }, { bindings, keysOf }) {
  const sheet = make("dialog", { className: "sheet", ariaLabel: "Keys" });
  let remapping = null; // what takes the next key

  function rowOf(one) {
    const keys = keysOf(one.id);
    const change = make("button", { type: "button", "data-id": one.id, ariaLabel: `${one.words}: ${keys.map(keyWords).join(" or ") || "no key"}; change`, onclick: () => remap(one, change) },
      ...(keys.length ? keys.map((key) => make("kbd", { textContent: keyWords(key) })) : [make("span", { className: "quiet", textContent: "none" })]));
    change.classList.toggle("own", Boolean(one.own));
    return [make("dt", {}, change), make("dd", { textContent: one.words })];
  }
  function show() {
    const groups = Map.groupBy ? Map.groupBy(bindings(), (one) => one.group) : bindings().reduce((all, one) => all.set(one.group, [...(all.get(one.group) ?? []), one]), new Map());
    const names = ["Items", "Tools", ...groups.keys()].filter((name, n, all) => groups.has(name) && all.indexOf(name) === n);
    const parts = names.map((name) => make("section", {}, make("h4", { textContent: name }), make("dl", {}, ...groups.get(name).slice(0, 60).flatMap(rowOf))));
    sheet.replaceChildren(make("div", { className: "head" }, make("h3", { textContent: "Keys" }), make("span", { className: "quiet", textContent: "Press one to change it." }), make("span", { className: "space" }),
      button("Reset", () => (taste.take(project.task), show(), refresh())), button("Close", () => sheet.close())), make("div", { className: "groups" }, ...parts));
  }
  function remap(one, change) {
    change.replaceChildren(make("span", { textContent: "press a key" }));
    remapping = (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (["Shift", "Control", "Alt", "Meta", "AltGraph"].includes(event.key)) return;
      remapping = null;
      if (event.key !== "Escape" && event.key !== "Tab") taste.put(project.task, { ...taste.get(project.task), [one.id]: chordOf(event) });
      show();
      refresh();
      sheet.querySelector(`[data-id="${CSS.escape(one.id)}"]`)?.focus();
    };
  }
  sheet.addEventListener("keydown", (event) => {
    if (remapping) return remapping(event);
    event.stopPropagation();
    if (event.key === "?" || event.key === "Escape") sheet.close();
  }, true);
  sheet.addEventListener("close", () => ((remapping = null), focus()));
  return { element: sheet, open: () => (show(), sheet.showModal()) };
}
