// The surface for pictures: boxes, polygons, masks and key points, by mouse, pen, finger or keyboard alone. What is under way is
// drawn here only; what is done goes to the frame as one action, which can be undone as one.

const TOOL_WORDS = { select: "Select", box: "Box", polygon: "Polygon", brush: "Brush", erase: "Erase", outline: "Outline", points: "Key points" };
const TOOL_KEYS = { select: "v", box: "d", polygon: "p", brush: "d", erase: "x", outline: "p", points: "d" };
const HINTS = { // what stands in braces becomes the next key point, or that action's key
  look: "Drag to move the picture, turn the wheel to zoom.",
  select: "Click a shape to select it, drag it or its points. Arrows move it, {key grip} takes its next point.",
  box: "Drag a box. By keyboard: arrows move the crosshair, Enter sets a corner.",
  boxed: "Move to the opposite corner and press Enter. Escape gives up.",
  polygon: "Click point after point. By keyboard: arrows move the crosshair, Enter sets a point.",
  ring: "Click the first point or press Enter once more to close, {key remove} takes the last point back.",
  points: "Click {point}; Shift-click or {tool hide}: hidden; {tool leave}: not there. By keyboard: arrows and Enter.",
  brush: "Paint. {key finer} and {key broader} change the size, the right button erases, Shift draws a line from the last place. Enter lowers and lifts the brush.",
  erase: "Erase. {key finer} and {key broader} change the size. Enter lowers and lifts the eraser.",
  outline: "Click around what is to be painted; Enter once more fills it.",
  held: "Arrows move the point, Shift by ten; {key grip} takes the next, {key insert} inserts one after it, {key remove} removes it, Escape lets go.",
};
const ARROWS = { left: ["ArrowLeft", -1, 0], right: ["ArrowRight", 1, 0], up: ["ArrowUp", 0, -1], down: ["ArrowDown", 0, 1] };

let imageSurfaces = 0;

function makeImageSurface(api) {
  const own = `mlops-image-${++imageSurfaces}`, { kinds, task } = api.project, semantic = task === "image_semantic_segmentation";
  const offered = { box: ["box"], polygon: ["polygon"], mask: ["brush", "erase", ...(kinds.includes("polygon") ? [] : ["outline"])], points: ["points"] };
  const drawing = kinds.flatMap((kind) => offered[kind] ?? []), plain = !drawing.length; // plain: the picture is only looked at
  const ordinals = new Map(api.project.classes.map((one, place) => [one.name, one.key || String(place + 1)]));

  let names = true, seeOthers = true; // whether they are shown
  const now = { // what is under way
    tool: plain || api.readOnly ? "look" : drawing[0], brush: 24,
    live: null, // the shape that is being changed or drawn, as it would be
    path: null, // points set so far, of a box, a polygon, an outline: {kind, points: [[x, y]], into: the polygon whose part it will be}
    adding: false, // the next ring becomes a part of the selected polygon
    grip: -1, // which point of the selected shape the arrows move
    gesture: null, // of the pointer
    hover: null, // where it is in the image: {x, y}
    cross: null, // where the keyboard's crosshair is: {x, y, moved: since a point was set there}
    lowered: null, // the stroke that the keyboard paints
    lastStroke: null, // where the last one ended
    nudged: 0, // the clock that tells what a held key has moved
    nudger: "", // that key: an arrow, or what somebody has put in its place
    held: false, // the space bar
    skipped: new Map(), // id of key points -> the last one that was passed over
  };

  // --- elements ---

  const stage = make("div", { className: "scene", tabIndex: 0, role: "application", "data-focus": "", "aria-describedby": `${own}-hint` });
  const hint = make("p", { className: "hint", id: `${own}-hint` });
  const spoken = make("p", { className: "spoken", role: "status" });
  const view = makeView(stage, { picture: paintPicture, marks: paintMarks, hand: paintHand });
  const list = makeShapeList(own, choose, () => stage.focus({ preventScroll: true }));
  const bar = makeViewBar(own, view, stage, actual, (size) => (now.brush = size));
  const element = make("div", { className: `mlops-image${plain ? " plain" : ""}` }, stage, hint, list.element, bar.element, spoken);
  list.element.hidden = plain;
  const masks = makeMasks(view, api.colour), { facts } = masks;
  const base = { api, now, view, masks, facts, semantic, shapes, selected, bounds, classOf, keypointNames, act, change, add, ready, choose, tell, hinted };
  const hand = makeDrawing(base), keyboard = makeKeyboard(base, hand);
  makePointer(stage, base, hand);
  function actual() {
    const at = now.cross ?? now.hover, [x, y] = at ? view.toStage(at.x, at.y) : [];
    view.zoom(1 / view.scale / (window.devicePixelRatio || 1), x, y);
  }
  function tell(text) { // to those who do not see it
    write(spoken, text);
  }

  // --- shapes ---

  function shapes() {
    return api.annotations().filter((one) => one.kind in KIND_WORDS);
  }
  function selected() {
    return shapes().find((one) => one.id === api.selected());
  }
  function classOf(name) {
    return api.project.classes.find((one) => one.name === name);
  }
  function keypointNames(annotation) { // of the current class where there is none
    return classOf(annotation?.label ?? api.label())?.keypoints ?? [];
  }
  const tag = (annotation) => [ordinals.get(annotation.label), names && annotation.label !== ordinals.get(annotation.label) ? annotation.label : "",
    names && annotation.source ? (typeof annotation.score === "number" ? annotation.score.toFixed(2) : "proposed") : ""].filter(Boolean).join("  ");
  const look = (annotation, more = {}) => {
    const { skeleton } = classOf(annotation.label) ?? {}, colour = more.colour ?? api.colour(annotation.label);
    const sheet = annotation.kind === "mask" ? masks.sheet(annotation, colour, more.id, annotation === now.live) : null;
    return { colour, skeleton, sheet, dash: annotation.source ? [7, 4] : [], fill: 0.12, ...more };
  };
  function bounds(annotation) {
    return boundsOf(annotation, facts);
  }
  function act(kind, data) {
    now.live = null;
    api.act(kind, data);
    view.need("marks", "hand");
  }
  function change(fields) {
    act("move", { id: api.selected(), ...fields });
  }
  function add(fields) {
    const annotation = { id: api.newId(), label: api.label(), ...fields };
    act("draw", { annotation });
    choose(annotation.id);
    return annotation.id;
  }
  function ready() {
    if (api.readOnly) return false;
    if (api.label() || !api.project.classes.length) return true;
    api.say("Choose a class first.");
    return false;
  }
  function choose(id) {
    hand.settle();
    now.grip = -1;
    if (id !== api.selected()) api.select(id);
    update();
  }

  // --- painting ---

  const showOthers = () => (seeOthers ? api.others() : []);
  function paintMarks(context) {
    const all = shapes(), chosen = api.selected(), tags = [];
    for (const { annotations, colour, by } of showOthers())
      for (const one of annotations.filter(({ kind }) => kind in KIND_WORDS)) {
        paintShape(context, view, one, look(one, { colour, dash: [6, 3], fill: 0, thin: true, id: `${by}\n${one.id}` }));
        tags.push([one, `${by}${names ? `  ${one.label}` : ""}`, colour]);
      }
    for (const one of all) {
      if (one.id === chosen || one.id === now.live?.id) continue;
      paintShape(context, view, one, look(one));
      tags.push([one, tag(one), api.colour(one.label)]);
    }
    for (const [one, text, colour] of tags) tagAt(context, one, text, colour, true);
  }
  function tagAt(context, annotation, text, colour, shortly = false) {
    const box = text && bounds(annotation);
    if (!box) return;
    const [x, y] = view.toStage(box.left, box.top), [right, bottom] = view.toStage(box.right, box.bottom);
    const words = shortly && right - x < 40 ? text.split("  ")[0] : text; // of many small ones the key alone
    if (right > 0 && bottom > 0 && x < view.wide && y < view.high) paintTag(context, view, x, y, words, colour);
  }
  function paintHand(context) {
    masks.refresh();
    const chosen = selected(), shown = now.live ?? chosen;
    if (shown) {
      paintShape(context, view, shown, look(shown, { selected: true, grips: !api.readOnly && !now.lowered && !(now.path && now.live), grip: now.grip }));
      if (shown.kind === "mask" && shown !== now.live) {
        const box = facts(shown);
        context.beginPath();
        trace(context, view, [[box.left, box.top], [box.right, box.top], [box.right, box.bottom], [box.left, box.bottom]], true);
        outline(context, api.colour(shown.label), 1, [4, 4]);
      }
      if (!now.live || (!now.path && now.live.kind !== "mask")) tagAt(context, shown, tag(shown), api.colour(shown.label));
      if (shown.kind === "points" && now.grip >= 0 && shown.points[now.grip][2]) tagPoint(context, shown.points[now.grip], keypointNames(shown)[now.grip]);
    }
    paintPath(context);
    const at = now.cross ?? now.hover;
    if (!at) return;
    if (now.cross) paintCross(context, view, now.cross.x, now.cross.y, true);
    else if (["box", "polygon", "outline", "points"].includes(now.tool) && !now.gesture?.quiet && !now.held) paintCross(context, view, now.hover.x, now.hover.y, false);
    if (now.tool === "brush" || now.tool === "erase") paintBrush(context, at);
    if (now.tool === "points" && !api.readOnly) tagPoint(context, [at.x, at.y], hand.nextWords());
    paintTag(context, view, 7, view.high - 3, `${Math.floor(at.x)}, ${Math.floor(at.y)}${now.live?.kind === "box" ? `   ${Math.round(now.live.width)} × ${Math.round(now.live.height)}` : ""}`, INK, FIGURE_FONT);
  }
  function tagPoint(context, [x, y], words) {
    if (words) paintTag(context, view, view.toStage(x, y)[0] + 10, view.toStage(x, y)[1] - 4, words, INK);
  }
  function paintBrush(context, at) {
    context.beginPath();
    context.arc(...view.toStage(at.x, at.y), Math.max(1, (now.brush / 2) * view.scale), 0, 7);
    outline(context, now.tool === "erase" || now.gesture?.erases ? PAPER : api.colour(hand.selectedMask()?.label ?? api.label()), 1.5, now.tool === "erase" || now.gesture?.erases ? [3, 3] : []);
  }
  function paintPath(context) {
    if (!now.path || now.path.kind === "box") return;
    const end = now.cross ?? now.hover, colour = api.colour(api.label());
    context.beginPath();
    trace(context, view, end ? [...now.path.points, [end.x, end.y]] : now.path.points);
    outline(context, colour, 2);
    now.path.points.forEach(([x, y], place) => {
      context.beginPath();
      context.arc(...view.toStage(x, y), place ? 3.5 : 6, 0, 7);
      context.fillStyle = place ? colour : PAPER;
      context.fill();
      outline(context, place ? PAPER : colour, 1.5);
    });
  }

  // --- tools and keys ---

  function take(name) {
    if (api.readOnly) return;
    hand.giveUp();
    [now.tool, now.grip] = [name, -1];
    bar.paints(name === "brush" || name === "erase");
    stage.style.cursor = "";
    hinted();
    tell(`${TOOL_WORDS[name]}.`);
    view.need("hand");
    stage.focus({ preventScroll: true });
  }
  const at = () => (now.cross ? view.toStage(now.cross.x, now.cross.y) : now.hover ? view.toStage(now.hover.x, now.hover.y) : []);
  const order = [...drawing.filter((name) => name !== "erase" && name !== "outline"), ...["erase", "outline"].filter((name) => drawing.includes(name)), "select"];
  const tools = plain || api.readOnly ? [] : order.map((name) => ({ name, words: TOOL_WORDS[name], key: TOOL_KEYS[name], pressed: () => now.tool === name, act: () => take(name) }));
  if (kinds.includes("mask") && !api.readOnly) {
    if (kinds.includes("polygon")) tools.push({ name: "mask", words: "To mask", key: "m", act: hand.toMask });
    tools.push({ name: "holes", words: "Fill holes", key: "o", act: hand.holes });
  }
  if (kinds.includes("polygon") && !api.readOnly) tools.push({ name: "part", words: "Add part", key: "w", pressed: () => now.adding, act: addPart });
  if (kinds.includes("points") && !api.readOnly)
    tools.push({ name: "hide", words: "Hidden", key: "h", act: hand.hidePoint }, { name: "leave", words: "Not there", key: "j", act: hand.skipPoint });
  if (!plain) tools.push({ name: "names", words: "Names", key: "t", pressed: () => names, act: () => ((names = !names), view.need("marks", "hand")) });
  if (api.role === "review" && !plain) tools.push({ name: "others", words: "Others", key: "y", pressed: () => seeOthers, act: () => ((seeOthers = !seeOthers), view.need("marks")) });
  function addPart() {
    if (selected()?.kind !== "polygon") return api.say("Select a polygon to add a part to it.");
    take("polygon");
    now.adding = true;
    tell("The next ring becomes a part of the selected polygon.");
  }
  const key = (name, words, which, act) => ({ name, words, key: which, act: (event) => act(event ?? {}) });
  const keys = [
    ...Object.entries(ARROWS).flatMap(([way, [name, right, below]]) => [
      ...(now.tool === "look" ? [] : [key(way, `Move ${way} (Shift: 10)`, name, (event) => keyboard.arrow(right, below, event))]),
      key(`pan ${way}`, `Picture: ${way}`, now.tool === "look" ? [name, `Alt+${name}`] : `Alt+${name}`, () => view.pan(-right * 60, -below * 60))]),
    key("larger", "Zoom in", "+", () => view.zoom(1.25, ...at())), key("smaller", "Zoom out", "-", () => view.zoom(0.8, ...at())),
    key("pan", "Hold to move the picture", " ", hold), key("fit", "Whole picture", "f", () => view.fit()), key("actual", "One to one", "z", actual),
    ...(plain ? [] : [key("next", "Next annotation", ".", () => keyboard.step(1)), key("previous", "Previous annotation", ",", () => keyboard.step(-1))]),
    ...(plain || api.readOnly ? [] : [
      key("set", "Set a point, close", "Enter", keyboard.enter),
      key("remove", "Delete, take back", ["Delete", "Backspace"], keyboard.remove),
      key("grip", "Next point of the shape", "e", (event) => keyboard.nextGrip(event.shiftKey))]),
    ...(kinds.includes("polygon") && !api.readOnly ? [key("insert", "Insert a point", "i", keyboard.insertPoint)] : []),
    ...(kinds.includes("mask") && !api.readOnly ? [key("finer", "Smaller brush", "[", () => bar.size(Math.min(now.brush - 1, now.brush / 1.2))), key("broader", "Larger brush", "]", () => bar.size(Math.max(now.brush + 1, now.brush * 1.2)))] : []),
  ];
  function hold() {
    if (!now.held) [now.held, stage.style.cursor] = [true, "grab"];
  }
  const nudges = ({ key: which, code }) => which.startsWith("Arrow") || code === now.nudger;
  function onKey(event) {
    if (!nudges(event) && !["Shift", "Alt", "Control", "Meta"].includes(event.key)) hand.settle();
  }
  function offKey(event) {
    if (event.key === " ") [now.held, stage.style.cursor] = [false, ""];
    if (nudges(event)) hand.settle();
  }

  // --- the list, the hint ---

  function hinted() {
    const state = now.grip >= 0 ? "held" : now.path ? (now.path.kind === "box" ? "boxed" : "ring") : now.tool;
    const { one, place } = now.tool === "points" ? hand.next() : {}, points = keypointNames(one);
    const point = `${points[place] ?? "the first key point"}${points.length ? ` (${place + 1} of ${points.length})` : ""}`;
    write(hint, HINTS[state].replace(/\{(.+?)\}/g, (_, what) => (what === "point" ? point : api.keyOf(what) || "no key")));
  }
  function update() {
    if (now.live && !now.gesture && !now.path && !now.lowered && !now.nudged) now.live = null;
    if (now.live && now.nudged && !shapes().some(({ id }) => id === now.live.id)) {
      clearTimeout(now.nudged);
      [now.live, now.nudged] = [null, 0];
    }
    if ((now.lowered || now.gesture?.strokes) && now.live?.rle !== selected()?.rle) hand.giveUp(); // undone below the brush
    if (now.live && now.path?.kind === "box") now.live = { ...now.live, label: api.label() };
    const one = selected();
    if (now.grip >= 0 && now.grip >= (one ? gripsOf(one).length : 0)) now.grip = -1;
    const all = shapes();
    list.show(all.map((each, place) => ({ id: each.id, ...describeShape(each, place + 1, facts), label: each.label || KIND_WORDS[each.kind], colour: api.colour(each.label), mark: ordinals.get(each.label) ?? "", proposed: Boolean(each.source) })), api.selected());
    hinted();
    view.need("marks", "hand");
  }

  stage.addEventListener("blur", () => (hand.settle(), (now.held = false)));
  element.addEventListener("keydown", onKey, { capture: true });
  element.addEventListener("keyup", offKey);
  bar.paints(now.tool === "brush");
  hinted();

  return {
    element,
    show(shown, picture) {
      hand.giveUp();
      masks.clear();
      [now.cross, now.hover, now.lastStroke, now.grip] = [null, null, null, -1];
      now.skipped.clear();
      list.clear();
      const { width = picture?.width ?? 1, height = picture?.height ?? 1 } = shown?.data ?? {};
      mark(stage, "aria-label", `Picture, ${width} by ${height} pixels`);
      view.resize();
      view.show(picture, { width, height });
      bar.size(clamp(Math.min(width, height) / 16, 2, 120));
      update();
    },
    update,
    tools,
    keys,
    labelled(label) {
      const one = selected();
      if (semantic) {
        choose(shapes().find((each) => each.label === label)?.id ?? "");
        return false;
      }
      if (!one || api.readOnly || now.path || now.gesture || one.label === label) return false;
      if (one.kind === "points" && keypointNames({ label }).length !== one.points.length) return api.say(`${label} has other key points.`), true;
      hand.settle();
      api.act("label", { id: one.id, label });
      return true;
    },
    settle() {
      hand.settle();
      if (now.lowered) keyboard.enter(); // what was painted is kept
    },
    missing: () => (now.path ? "What you are drawing is not finished: Enter closes it, Escape gives it up." : ""),
    cancel() {
      hand.settle();
      if (hand.giveUp()) return true;
      if (now.grip < 0 && !now.cross && !api.selected()) return false;
      if (now.grip >= 0) now.grip = -1;
      else if (now.cross) now.cross = null;
      else choose("");
      hinted();
      view.need("hand");
      return true;
    },
    resized: view.resize,
    destroy() {
      hand.settle();
      view.close();
    },
  };
}

export default { render: labelCard(makeImageSurface) };
