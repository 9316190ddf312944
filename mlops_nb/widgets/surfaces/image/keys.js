// Every drawing action by keyboard alone: a crosshair that arrows move, Enter that sets a point; shapes and their points nudged.

function makeKeyboard({ api, now, view, masks, facts, shapes, selected, bounds, keypointNames, act, change, choose, tell, hinted }, { inside, boxTo, beginBox, endBox, addPoint, closePath, giveUp, settle, beginStroke, next, setPoint, removeGrip }) {
  function arrow(right, below, event) {
    const far = event.shiftKey ? 10 : 1, one = now.live ?? selected();
    const nudges = one && !now.path && !now.lowered && !api.readOnly && (now.tool === "select" || now.grip >= 0 || (one.kind !== "mask" && !(now.tool === "points" && next().one) && !now.cross));
    if (nudges) return nudge(one, right * far, below * far, event.code);
    const step = far * Math.max(1, Math.round(1 / view.scale)), start = startOfCross();
    now.cross = { x: clamp(start.x + right * step, 0, view.size.width), y: clamp(start.y + below * step, 0, view.size.height), moved: true };
    view.reveal(now.cross.x, now.cross.y);
    if (now.path?.kind === "box") boxTo(now.cross.x, now.cross.y, false);
    now.lowered?.to({ x: now.cross.x, y: now.cross.y });
    view.need("hand");
  }
  function startOfCross() {
    if (now.cross) return now.cross;
    const at = now.hover && now.hover.x >= 0 && now.hover.y >= 0 && now.hover.x <= view.size.width && now.hover.y <= view.size.height ? now.hover : inside(view.toImage(view.wide / 2, view.high / 2));
    return { x: Math.round(at.x), y: Math.round(at.y) };
  }
  function nudge(one, right, below, key) {
    if (one.kind === "mask") {
      const { raster } = masks.open(selected()), rle = encodeRaster(shiftRaster(raster, right, below));
      if (rle) change({ rle });
      return;
    }
    const taken = now.grip >= 0 ? gripsOf(one)[now.grip] : null;
    now.live = { ...one, ...(taken ? moveGrip(one, now.grip, taken.x + right, taken.y + below, view.size) : shiftShape(one, right, below, view.size, bounds(one))) };
    clearTimeout(now.nudged);
    now.nudger = key;
    now.nudged = setTimeout(settle, 3000); // should nobody hear the key come up; longer than any keyboard waits before it repeats
    view.need("hand");
  }
  function enter() {
    if (api.readOnly || now.tool === "look" || now.tool === "select") return false;
    if (now.path && now.path.kind !== "box" && !now.cross?.moved) return void closePath();
    if (!now.cross) return false; // nobody draws by keyboard: the frame submits
    now.cross.moved = false;
    const { x, y } = now.cross;
    if (now.tool === "box") {
      if (!now.path) {
        beginBox(x, y);
        return void (now.path && tell(`First corner at ${x}, ${y}.`));
      }
      if (!now.live || x === now.path.points[0][0] || y === now.path.points[0][1]) return api.say("Move the crosshair to the opposite corner first.");
      now.cross = null;
      return endBox();
    }
    if (now.tool === "points") return void setPoint(now.cross);
    if (now.tool === "brush" || now.tool === "erase") {
      if (now.lowered) {
        const stroke = now.lowered;
        now.lowered = null;
        stroke.end();
        return tell("Brush lifted.");
      }
      now.lowered = beginStroke({ x, y }, now.tool === "erase");
      now.lowered?.to({ x, y });
      return now.lowered && tell("Brush lowered: arrows paint, Enter lifts it.");
    }
    addPoint(now.cross);
    tell(`Point ${now.path?.points.length ?? 0} at ${x}, ${y}.`);
  }
  function nextGrip(back) {
    settle();
    const one = selected(), all = one ? gripsOf(one, keypointNames(one)) : [];
    if (!all.length || api.readOnly) return api.say("Select a shape that has points first.");
    for (let tries = 0; tries < all.length; tries++) {
      now.grip = now.grip < 0 && back ? all.length - 1 : (now.grip + (back ? all.length - 1 : 1)) % all.length;
      if (all[now.grip].seen !== 0) break;
    }
    now.cross = null;
    view.reveal(all[now.grip].x, all[now.grip].y);
    tell(`${all[now.grip].words}, at ${Math.round(all[now.grip].x)}, ${Math.round(all[now.grip].y)}.`);
    hinted();
    view.need("hand");
  }
  function insertPoint() {
    const one = selected();
    if (one?.kind !== "polygon" || now.grip < 0 || api.readOnly) return false;
    const { part, place } = gripsOf(one)[now.grip], ring = one.rings[part], [a, b] = [ring[place], ring[(place + 1) % ring.length]];
    change({ rings: withPoint(one.rings, part, place, [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]) });
    now.grip++;
    tell(`${gripsOf(selected())[now.grip].words} inserted.`);
  }
  function remove() {
    settle();
    if (now.path) {
      now.path.points.pop();
      if (now.cross) now.cross.moved = true; // it is on no point now
      if (!now.path.points.length) giveUp();
      return view.need("hand");
    }
    if (api.readOnly) return;
    const one = selected();
    if (!one) return api.say("Nothing is selected.");
    if (now.grip >= 0 && one.kind !== "box") return removeGrip(now.grip);
    const place = shapes().indexOf(one);
    act("delete", { id: one.id });
    choose(shapes()[Math.min(place, shapes().length - 1)]?.id ?? "");
  }
  function step(by) {
    settle();
    const all = shapes(), place = all.findIndex(({ id }) => id === api.selected());
    if (!all.length) return api.say("Nothing is drawn yet.");
    const one = all[place < 0 ? (by > 0 ? 0 : all.length - 1) : (place + by + all.length) % all.length];
    choose(one.id);
    now.cross = null;
    tell(describeShape(one, all.indexOf(one) + 1, facts).name);
  }

  return { arrow, enter, nextGrip, insertPoint, remove, step };
}
