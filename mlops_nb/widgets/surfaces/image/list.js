// What stands below the picture: the list of what is drawn, and the view's own controls.

// The shapes as a list that is gone through with the arrows; `choose(id)` selects one, `leave()` goes back to the picture.
function makeShapeList(own, choose, leave) {
  const list = make("ul", { className: "shapes", role: "listbox", tabIndex: 0, ariaLabel: "Annotations", "aria-orientation": "horizontal" });
  const empty = make("p", { className: "quiet", textContent: "Nothing is drawn yet." });
  const rows = new Map();
  let shown = [], chosen = "", made = 0;
  function rowOf(id) {
    if (!rows.has(id)) {
      const swatch = make("i", { "aria-hidden": "true" }), label = make("b"), size = make("span", { className: "quiet" });
      rows.set(id, { swatch, label, size, element: make("li", { role: "option", id: `${own}-${++made}`, onclick: () => choose(id) }, swatch, label, size) });
    }
    return rows.get(id);
  }
  list.addEventListener("keydown", (event) => {
    const last = shown.length - 1, place = shown.findIndex(({ id }) => id === chosen), on = Math.min(place + 1, last), back = Math.max(place - 1, 0);
    const to = { ArrowDown: on, ArrowRight: on, ArrowUp: back, ArrowLeft: back, Home: 0, End: last }[event.key];
    if (event.key === "Enter") leave();
    if (to === undefined && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation();
    if (shown[to]) choose(shown[to].id);
  });
  return {
    element: make("div", { className: "drawn" }, empty, list),
    clear() {
      rows.clear();
      list.replaceChildren();
    },
    show(shapes, selected) { // each {id, name, label, size, colour, mark, proposed}
      [shown, chosen, empty.hidden, list.hidden] = [shapes, selected, shapes.length > 0, shapes.length === 0];
      arrange(list, shapes.map((one) => {
        const row = rowOf(one.id);
        mark(row.element, "aria-label", one.name);
        mark(row.element, "aria-selected", String(one.id === selected));
        mark(row.element, "data-proposed", String(one.proposed));
        mark(row.swatch, "style", `--own: ${one.colour}; --ink: ${inkOn(one.colour)}`);
        write(row.swatch, one.mark.slice(0, 2));
        write(row.label, one.label);
        write(row.size, one.size);
        return row.element;
      }));
      const active = shapes.some(({ id }) => id === selected) ? rows.get(selected).element : null;
      mark(list, "aria-activedescendant", active?.id ?? "");
      if (active && list.scrollHeight > list.clientHeight) list.scrollTop = clamp(list.scrollTop, active.offsetTop + active.offsetHeight - list.clientHeight, active.offsetTop); // and no page scrolls
    },
  };
}

// Zoom, the brush's size, brightness and contrast; the last two change only how the picture looks.
function makeViewBar(own, view, stage, actual, sized) {
  const percent = make("output", { className: "percent", ariaLabel: "zoom" });
  const button = (words, title, act) => make("button", { type: "button", textContent: words, title, ariaLabel: title, onclick: () => (act(), stage.focus({ preventScroll: true })) });
  const slider = (words, lowest, highest, value, change) => {
    const input = make("input", { type: "range", min: lowest, max: highest, value, id: `${own}-${words}`, oninput: () => change(Number(input.value)) });
    return { input, part: make("span", { className: "slider" }, make("label", { htmlFor: input.id, textContent: words }), input) };
  };
  const light = slider("Brightness", 20, 300, 100, filter), contrast = slider("Contrast", 20, 300, 100, filter);
  const brush = slider("Brush", 1, 200, 24, size), pixels = make("output", { htmlFor: brush.input.id });
  brush.part.append(pixels);
  const reset = button("Reset", "Brightness and contrast as they are", () => ((light.input.value = contrast.input.value = 100), filter()));
  function filter() {
    const [bright, strong] = [light.input.value, contrast.input.value], changed = bright !== "100" || strong !== "100";
    stage.querySelector(".picture").style.filter = changed ? `brightness(${bright}%) contrast(${strong}%)` : "";
    reset.hidden = !changed;
  }
  function size(value) {
    const most = Math.max(200, Math.round(view.size.width / 8)), set = clamp(Math.round(value), 1, most);
    brush.input.max = Math.max(200, set);
    brush.input.value = set;
    write(pixels, `${set} px`);
    sized(set);
    view.need("hand");
  }
  view.changed = () => write(percent, `${Math.round(view.scale * 100)} %`);
  reset.hidden = brush.part.hidden = true;
  return {
    element: make("div", { className: "bar" },
      make("span", { className: "group" }, button("\u2212", "Zoom out", () => view.zoom(1 / 1.25)), percent, button("+", "Zoom in", () => view.zoom(1.25)),
        button("Fit", "Show the whole picture", view.fit), button("1:1", "One pixel of the picture as one of the screen", actual)),
      brush.part, light.part, contrast.part, reset),
    size,
    paints: (does) => (brush.part.hidden = !does),
  };
}
