// What is being drawn or changed, whatever moves it: boxes and areas by their points, masks by strokes, key points one by one.

function makeDrawing({ api, now, view, masks, facts, shapes, selected, keypointNames, act, change, add, ready, choose, tell, hinted, semantic }) {
  function inside({ x, y }) {
    return { x: clamp(x, 0, view.size.width), y: clamp(y, 0, view.size.height) };
  }
  function boxTo(x, y, square) {
    const [x1, y1] = now.path.points[0];
    if (square) {
      const side = Math.max(Math.abs(x - x1), Math.abs(y - y1));
      [x, y] = [x1 + Math.sign(x - x1) * side, y1 + Math.sign(y - y1) * side];
    }
    now.live = { id: now.path.id, kind: "box", label: api.label(), ...boxBetween(x1, y1, clamp(Math.round(x), 0, view.size.width), clamp(Math.round(y), 0, view.size.height), view.size) };
    view.need("hand");
  }
  function beginBox(x, y) {
    if (!ready()) return;
    choose("");
    now.path = { kind: "box", id: api.newId(), points: [[Math.round(x), Math.round(y)]] };
    hinted();
  }
  function endBox() {
    const { id, points: [[x, y]] } = now.path, box = now.live;
    [now.path, now.live] = [null, null];
    hinted();
    view.need("hand");
    if (!box) return;
    act("draw", { annotation: box });
    choose(id);
    tell(`Box from ${x}, ${y}: ${box.width} by ${box.height}.`);
  }
  function addPoint({ x, y }) {
    if (!now.path) {
      if (!ready()) return;
      const into = now.adding && selected()?.kind === "polygon" ? api.selected() : "";
      if (!into && !(now.tool === "outline" && selected()?.kind === "mask")) choose("");
      now.path = { kind: now.tool, points: [], into };
    }
    const place = [tenth(x), tenth(y)], last = now.path.points.at(-1);
    if (!last || last[0] !== place[0] || last[1] !== place[1]) now.path.points.push(place);
    hinted();
    view.need("hand");
  }
  function closePath() {
    const { points, kind, into } = now.path;
    if (points.length < 3 || ringArea(points) === 0) return api.say("An area has at least three points that are not on one line.");
    [now.path, now.adding, now.cross] = [null, false, null];
    hinted();
    if (kind === "outline") return paintOutline(points);
    const old = into && shapes().find((one) => one.id === into);
    old ? change({ rings: [...old.rings, points] }) : add({ kind: "polygon", rings: [points] });
    tell(`Polygon of ${points.length} points.`);
  }
  function giveUp() {
    const under = Boolean(now.gesture || now.path || now.live || now.lowered || now.adding);
    if (now.lowered || now.gesture?.strokes) masks.drop();
    now.gesture?.cancel?.();
    clearTimeout(now.nudged);
    [now.gesture, now.path, now.live, now.lowered, now.nudged, now.adding] = [null, null, null, null, 0, false];
    hinted();
    view.need("marks", "hand");
    return under;
  }
  function settle() { // what a held key has moved is told when it is let go
    if (!now.nudged) return;
    clearTimeout(now.nudged);
    now.nudged = 0;
    const one = now.live;
    now.live = null;
    if (!one || !shapes().some(({ id }) => id === one.id)) return;
    act("move", { id: one.id, ...placeOf(one) });
  }

  function settleLive(old) {
    const fields = placeOf(now.live), same = JSON.stringify(fields) === JSON.stringify(placeOf(old));
    same ? ((now.live = null), view.need("hand")) : act("move", { id: now.live.id, ...fields });
  }
  function removeGrip(place) {
    const one = selected(), found = one && gripsOf(one)[place];
    if (!found || one.kind === "box") return;
    now.grip = -1;
    if (one.kind === "points") return change({ points: one.points.map((point, at) => (at === place ? [0, 0, 0] : point)) });
    const rings = withoutPoint(one.rings, found.part, found.place);
    rings.length ? change({ rings }) : act("delete", { id: one.id });
  }

  // --- masks ---

  function selectedMask() {
    const one = selected();
    if (one?.kind === "mask") return one;
    return semantic ? shapes().find(({ kind, label }) => kind === "mask" && label === api.label()) : undefined;
  }
  function beginStroke(at, erases, radius = now.brush / 2) {
    const target = selectedMask();
    if (!target && erases) return api.say("No mask is selected."), null;
    if (!ready()) return null;
    if (target && target.id !== api.selected()) choose(target.id);
    if (!target && api.selected()) choose("");
    const label = target?.label ?? api.label(), id = target?.id ?? api.newId(), { raster } = masks.open(target ?? { id, label });
    now.live = { ...(target ?? { id, kind: "mask", label }) };
    const stroke = { id, known: Boolean(target), value: erases ? 0 : 1, last: at, strokes: true };
    stroke.to = (next, wide = radius) => {
      masks.touch(paintStroke(raster, stroke.last, next, wide, stroke.value));
      stroke.last = next;
      view.need("hand");
    };
    stroke.end = () => {
      now.lastStroke = stroke.last;
      keepRaster(id, stroke.known, label);
    };
    view.need("marks");
    return stroke;
  }
  function keepRaster(id, known, label) { // the raster as it is now becomes the mask
    const rle = masks.close();
    now.live = null;
    if (!rle) {
      if (known) act("delete", { id });
      return view.need("marks", "hand");
    }
    act(...(known ? ["move", { id, rle }] : ["draw", { annotation: { id, kind: "mask", label, rle } }]));
    if (!known) choose(id);
  }
  function paintOutline(points) {
    const target = selectedMask(), id = target?.id ?? api.newId(), label = target?.label ?? api.label(), { raster } = masks.open(target ?? { id, label });
    paintRing(raster, points, 1);
    masks.touch(raster);
    keepRaster(id, Boolean(target), label);
  }
  function toMask() {
    const one = selected();
    if (one?.kind !== "polygon") return api.say("Select a polygon to make a mask of it.");
    const { raster } = masks.open({ id: one.id, label: one.label });
    for (const ring of one.rings) paintRing(raster, ring, 1);
    masks.touch(raster);
    const rle = masks.close(), { rings, source, score, ...kept } = one;
    if (!rle) return api.say("No pixel's centre is inside.");
    act("draw", { annotation: { ...kept, kind: "mask", rle } });
    tell(`A mask of ${facts({ id: one.id, rle }).area} pixels.`);
  }
  function holes() {
    const one = selectedMask();
    if (!one) return api.say("No mask is selected.");
    const { raster } = masks.open(one), filled = fillHoles(raster);
    if (!filled) return api.say("The mask has no holes.");
    masks.touch(raster);
    keepRaster(one.id, true, one.label);
    tell(`${filled} pixels filled.`);
  }

  // --- key points: one after the other, in the order of the class ---

  function next() { // which is set next, and of which shape
    const one = selected();
    if (one?.kind !== "points") return { place: 0, one: null };
    const set = Math.max(one.points.findLastIndex(([, , seen]) => seen), now.skipped.get(one.id) ?? -1) + 1;
    return set < one.points.length ? { place: set, one } : { place: 0, one: null };
  }
  function nextWords() {
    const { place } = next();
    return keypointNames(next().one)[place] ?? "";
  }
  function setPoint({ x, y }, seen = 2) {
    if (!ready()) return;
    const { place, one } = next(), total = (one?.points ?? keypointNames()).length;
    if (!total) return api.say(`The class ${api.label()} has no key points.`);
    const points = (one?.points ?? Array.from({ length: total }, () => [0, 0, 0])).map((point, at) => (at === place ? [tenth(x), tenth(y), seen] : point));
    one ? change({ points }) : add({ kind: "points", points });
    tellNext();
  }
  function tellNext() {
    const { one, place } = next();
    tell(one ? `Next: ${keypointNames(one)[place]}, ${place + 1} of ${one.points.length}.` : "All key points are set.");
    hinted();
    view.need("hand");
  }
  function skipPoint() {
    const one = selected();
    if (one?.kind !== "points" || api.readOnly) return api.say("Set the first key point, then skip those that are not there.");
    if (now.grip >= 0) return change({ points: one.points.map((point, at) => (at === now.grip ? [0, 0, 0] : point)) });
    const { place, one: open } = next();
    if (!open) return;
    now.skipped.set(one.id, place);
    tellNext();
  }
  function hidePoint() {
    const one = selected();
    if (one?.kind !== "points" || api.readOnly) return api.say("Select key points first.");
    const place = now.grip >= 0 ? now.grip : one.points.findLastIndex(([, , seen]) => seen);
    if (place < 0 || !one.points[place][2]) return;
    change({ points: one.points.map(([x, y, seen], at) => (at === place ? [x, y, 3 - seen] : [x, y, seen])) });
    tell(`${keypointNames(one)[place]} is ${one.points[place][2] === 2 ? "hidden" : "visible"}.`);
  }

  return { inside, boxTo, beginBox, endBox, addPoint, closePath, giveUp, settle, settleLive, selectedMask, beginStroke, toMask, holes, next, nextWords, setPoint, skipPoint, hidePoint, removeGrip };
}
