// The frame of the labeling card: it hands a surface (image, text, compare, row) one item after the other, keeps what a person
// does until Python says that it is saved, and gives every action a key.
//
// A surface is made by `makeXSurface(api)` and ends its file with `export default { render: labelCard(makeXSurface) };`. Beside
// show, update, tools, keys, labelled, cancel, resized and destroy these hold:
// - `api.project.classes[].key` and `.colour` are always filled in where there are any: own key, the name if it is one character, 1 to 9.
//   `api.project.single` says whether a class excludes the others.
// - Keys are written as `Enter`, `ArrowLeft`, `Shift+ArrowLeft`, `Mod+a` (Ctrl or Cmd), `Alt+b`, a letter in lower case, ` ` for
//   the space bar, any other character as it is typed (`[`, `?`, `+`). One that nobody claims with Shift is tried without it.
//   A key comes first to what the person has remapped, then to classes, then to the surface's `keys` and `tools`, then to the
//   frame; `act(event)` of a key or tool may return false to pass it on (so Enter submits when no polygon is under way). Several
//   keys of one action: `key: ["Delete", "Backspace"]`. While the focus is in a field only keys with Mod or Alt, and Escape, count,
//   unless the field has `data-keys`. The key's release is the surface's own business (listen on its element). `api.keyOf("key grip")`
//   says which key that action has now.
// - `tools` and `keys` are read again at each update, so they may be getters. Both may have `group: "words"` for the ? sheet.
// - The frame calls `element.focus()` for `api.focus()`: give it a tabIndex, or an element in it `data-focus`.
// - `api.item()` is the item that is shown ({id, data, why, model}); `api.state()` its answer's state; `api.hidden(by)` whether a
//   reviewer has switched this person's answer off; `api.dark()` whether the theme is dark.
// - `api.act` on an answer that was submitted takes it up again first. An act that cannot be is refused with a word to the person.
// - Text fields: `missing()` of a surface (optional) returns what keeps an answer from being submitted, in words, or "".
// - `settle()` (optional) is called before submit, skip, back: record what is under way (a text that is being typed).

let cards = 0;

function labelCard(makeSurface) {
  return ({ model, el }) => {
    const card = makeCard(model, makeSurface);
    el.append(card.root);
    card.begin();
    return card.end;
  };
}

// What a surface is made with.
function makeApi({ project, role, readOnly, user, now, root, annotations, others, entry, told, say, focus, select, keyOf }, { act }, classes) {
  const colours = new Map([...project.relations, ...project.classes].map((one) => [one.name, one.colour])); // of a name that is both, the class's
  return {
    project, role, readOnly, user,
    act, newId, say, focus, annotations, others, select, keyOf,
    state: () => entry()?.fold.state ?? "open",
    item: () => told() ?? null,
    selected: () => now.selected,
    label: () => now.current,
    setLabel(name) {
      now.current = name;
      classes.show();
      now.surface?.update();
    },
    colour: (label) => colours.get(label) ?? "#7d8590",
    hidden: (by) => now.hidden.has(by),
    dark: () => getComputedStyle(root).colorScheme === "dark" || (getComputedStyle(root).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches),
  };
}

function makeCard(model, makeSurface) {
  const { project, user, role, progress } = model.get("shown"), review = role === "review", readOnly = role === "read";
  const onlyClasses = project.kinds.length === 1 && project.kinds[0] === "class";
  const now = { // what is under way
    trail: [], at: -1, // what this page has shown, in order, and where in it we are; the last one is the newest
    ahead: null, asking: false, // the item after it, once it is here; whether we wait for one
    none: "", problem: "", // why there is no item; what went wrong
    progress, agreement: [],
    current: onlyClasses ? "" : project.classes[0]?.name ?? "", selected: "", // the class that is chosen; the annotation that is
    people: new Map(), hidden: new Set(), // everybody's colour; whose answers the reviewer does not want to see
    surface: null,
  };
  const root = make("section", { className: "mlops-label", ariaLabel: `${review ? "review" : "label"} ${project.name}`, "data-lm-suppress-shortcuts": "true", "data-medium": project.medium, tabIndex: -1 });
  const shelf = makeShelf(`mlops-label ${project.key} ${role} ${user} `), taste = makeShelf("mlops-label-taste ");
  const outbox = makeOutbox(tell, shelf, showState), watch = makeWatch(), voice = makeVoice();
  const card = { own: `mlops-label-${++cards}`, project, user, role, review, readOnly, onlyClasses, whose: review ? "" : user, now, root, shelf, taste, outbox, watch,
    tell, say: voice.say, entry, told, annotations, others, select, keysOf, keyOf, focus, refresh, showState };

  // --- the parts; each is given those that it acts on ---

  const question = makeQuestion(card), actions = makeActions(card), remarks = makeRemarks(card, actions);
  const header = makeHeader(card, openSheet), stage = makeStage(card, () => trail.want()), trail = makeTrail(card, actions, stage, header, question);
  const ending = makeEnding(card, actions, trail, question, remarks), people = makePeople(card, actions, trail, question);
  const classes = makeClasses(card, actions), toolbar = makeToolbar(card), footer = makeFooter(card, actions, ending, trail);
  const framed = frameKeys(review, actions, trail, ending, { header, remarks, classes, people }, openSheet);
  const keys = makeKeys(card, framed, classes, toolbar), sheet = makeSheet(card, keys), hear = makeNews(card, trail, stage, header, classes);
  const side = make("aside", { ariaLabel: "Classes and comments" }, classes.element, people.element, remarks.facts, remarks.comments);
  const work = make("div", { className: "work" }, toolbar.element, stage.why, stage.stage, stage.rest);
  root.append(header.element, header.about, stage.faults, make("div", { className: "body" }, work, side), question.element, footer.element, voice.element, sheet.element);

  // --- what all of them ask ---

  function tell(message) {
    try {
      Promise.resolve(model.send(message)).catch(() => {});
    } catch {
      // the kernel is gone; what matters is sent again
    }
  }
  function entry() { // the item that is shown, and its answer
    return now.trail[now.at] ?? null;
  }
  function told() {
    return entry()?.told;
  }
  function annotations() {
    return entry() ? tellFold(entry().fold).annotations : [];
  }
  function others() {
    return (told()?.others ?? []).filter((one) => !now.hidden.has(one.by)).map((one) => ({ ...one, colour: now.people.get(one.by) }));
  }
  function select(id) {
    if (now.selected === id) return;
    now.selected = id;
    refresh();
  }
  function keysOf(id) {
    return keys.keysOf(id);
  }
  function keyOf(id) { // the first of them, for people
    return keysOf(id).slice(0, 1).map(keyWords).join();
  }
  function openSheet() {
    sheet.open();
  }
  function showState() {
    footer.showState();
  }
  function focus() {
    const { element } = now.surface, inner = element.matches("[tabindex]") ? element : element.querySelector("[data-focus]");
    ((entry() && inner) || root).focus({ preventScroll: true }); // while no item is here the surface is hidden
  }
  function refresh() {
    now.surface.update();
    for (const part of [toolbar, classes, people, remarks, header, footer]) part.show();
    for (const kbd of root.querySelectorAll("kbd[data-of]")) write(kbd, keyOf(kbd.dataset.of));
  }

  // --- what comes from outside ---

  function onKey(event) {
    if (!sheet.element.open) keys.press(event);
  }
  function onDown(event) {
    const pressed = event.target.closest?.("button, summary");
    if (pressed && !sheet.element.contains(pressed) && !question.element.contains(pressed)) event.preventDefault(); // the focus stays where the work is
    if (!root.contains(document.activeElement)) focus();
  }
  const moved = () => watch.tick();
  const sized = new ResizeObserver(() => now.surface?.resized?.());

  return {
    root,
    begin() {
      now.surface = makeSurface(makeApi(card, actions, classes));
      stage.stage.append(now.surface.element);
      root.addEventListener("keydown", onKey);
      root.addEventListener("mousedown", onDown);
      for (const kind of ["pointermove", "keydown", "wheel", "pointerdown"]) root.addEventListener(kind, moved, { passive: true });
      model.on("msg:custom", hear);
      sized.observe(stage.stage);
      refresh();
      stage.show();
      outbox.all();
      trail.want();
    },
    end() {
      model.off("msg:custom", hear);
      outbox.close();
      trail.close();
      voice.close();
      sized.disconnect();
      now.surface?.destroy?.();
    },
  };
}
