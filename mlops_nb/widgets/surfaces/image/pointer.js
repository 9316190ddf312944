// Mouse, pen and fingers: what begins where the pointer goes down, and follows it until it is let go.

const REACH = { mouse: 7, pen: 10, touch: 20 }; // screen pixels within which a line or a point is meant
const GRIP = 15; // screen pixels of the corner by which the stage is resized
const STILL = 4; // screen pixels that a click may move

// Each gesture is {move(place in the image, place on the stage, event), end(moved), cancel()}; `quiet`: without guide lines.
function makePointer(stage, { api, now, view, facts, shapes, selected, bounds, classOf, choose, hinted }, { inside, boxTo, beginBox, endBox, addPoint, closePath, giveUp, settle, settleLive, beginStroke, setPoint, removeGrip }) {
  const fingers = new Map();
  function under({ x, y }, reach) { // the shape that is meant: lines before areas, the smallest first
    const area = (one) => ((box) => (box ? (box.right - box.left) * (box.bottom - box.top) : 0))(bounds(one));
    const found = shapes().map((one) => ({ one, how: meets(one, x, y, reach, classOf(one.label)?.skeleton, facts) })).filter(({ how }) => how);
    return found.sort((a, b) => b.how - a.how || area(a.one) - area(b.one)).map(({ one }) => one);
  }
  function dragGrip(one, place) {
    const taken = { quiet: true, move: (at) => ((now.live = { ...one, ...moveGrip(one, place, at.x, at.y, view.size) }), view.need("hand")) };
    taken.end = () => now.live && settleLive(one);
    now.grip = one.kind === "box" ? -1 : place;
    return taken;
  }
  function dragShape(one, from) {
    const whole = one.kind === "box" ? Math.round : (value) => value, box = bounds(one);
    return { quiet: true, end: () => now.live && settleLive(one), move: (at) => {
      now.live = { ...one, ...shiftShape(one, whole(at.x - from.x), whole(at.y - from.y), view.size, box) };
      view.need("hand");
    } };
  }
  function panning() {
    let last = null;
    return { quiet: true, pans: true, move: (at, point) => (last && view.pan(point.x - last.x, point.y - last.y), (last = point)), start: (point) => (last = point) };
  }
  function begin(event, at, point) {
    const reach = (REACH[event.pointerType] ?? REACH.mouse) / view.scale, one = selected();
    if (event.button === 1 || now.held || now.tool === "look") return Object.assign(panning(), { end: (moved) => moved || now.tool !== "look" || choose(under(at, reach)[0]?.id ?? "") });
    if (event.ctrlKey || event.metaKey) return { quiet: true, end: () => choose(under(at, reach)[0]?.id ?? "") };
    if (now.tool === "brush" || now.tool === "erase") {
      const erases = now.tool === "erase" || event.button === 2 || (event.buttons & 32) > 0;
      const wide = (pressed) => (now.brush / 2) * (pressed.pointerType === "pen" && pressed.pressure > 0 ? 0.4 + 1.2 * pressed.pressure : 1);
      const stroke = beginStroke(event.shiftKey && now.lastStroke ? now.lastStroke : at, erases);
      if (!stroke) return null;
      stroke.to(at, wide(event));
      return { strokes: true, erases, move: (to, _, moved) => stroke.to(to, wide(moved)), end: () => stroke.end() };
    }
    if (event.button !== 0) return null;
    if (now.path && now.tool !== "box") return { end: () => clickPoint(reach) };
    const place = one && !api.readOnly && one.kind !== "mask" ? gripAt(one, at, reach) : -1;
    if (place >= 0) return event.altKey && one.kind !== "box" ? { quiet: true, end: () => removeGrip(place) } : dragGrip(one, place);
    const edge = one && nearestEdge(one, at.x, at.y);
    if (one?.kind === "polygon" && edge.distance <= reach) return insertAt(one, edge);
    if (one?.kind === "box" && edge.distance <= reach) return dragShape(one, at);
    if (now.tool === "select") {
      const found = under(at, reach), again = found.findIndex(({ id }) => id === api.selected()), target = found[0];
      if (target && !found.includes(one)) choose(target.id);
      const grabbed = selected();
      const through = (moved) => moved || (found.includes(one) ? choose(found[(again + 1) % found.length].id) : found.length || choose(""));
      if (!grabbed || !found.includes(grabbed) || grabbed.kind === "mask") return { quiet: true, end: through };
      const drag = dragShape(grabbed, at);
      return { ...drag, end: (moved) => (moved ? drag.end() : ((now.live = null), through(false))) };
    }
    if (now.tool === "box") {
      beginBox(at.x, at.y);
      return now.path && { move: (to, _, moved) => boxTo(to.x, to.y, moved.shiftKey), cancel: () => (now.path = null), end: (moved) => {
        if (moved) return endBox();
        [now.path, now.live] = [null, null];
        hinted();
        choose(under(at, reach)[0]?.id ?? "");
      } };
    }
    if (now.tool === "points") return { end: () => setPoint(inside(now.hover), event.shiftKey ? 1 : 2) };
    return { end: () => clickPoint(reach) };
  }
  function clickPoint(reach) {
    const first = now.path?.points[0], at = inside(now.hover);
    if (first && now.path.points.length > 2 && Math.hypot(first[0] - at.x, first[1] - at.y) <= reach) return closePath();
    addPoint(at);
  }
  function insertAt(one, { part, place, point }) {
    const index = one.rings.slice(0, part).flat().length + place + 1, grown = { ...one, rings: withPoint(one.rings, part, place, point) };
    const drag = dragGrip(grown, index);
    now.live = grown;
    return { ...drag, end: (moved) => (moved ? settleLive(one) : ((now.live = null), (now.grip = -1), view.need("hand"))) };
  }
  function down(event) {
    view.forget();
    stage.focus({ preventScroll: true });
    const point = view.pointer(event);
    if (event.pointerType === "mouse" && point.x > view.wide - GRIP && point.y > view.high - GRIP) return; // the browser's own, to make the stage higher
    if (event.pointerType === "mouse" && event.button > 2) return;
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    settle();
    fingers.set(event.pointerId, point);
    if (fingers.size === 2) return pinch();
    if (fingers.size > 2 || now.gesture) return;
    [now.cross, now.hover] = [null, view.toImage(point.x, point.y)];
    if (now.lowered) giveUp();
    now.gesture = begin(event, inside(now.hover), point);
    now.gesture?.start?.(point);
    if (now.gesture) Object.assign(now.gesture, { from: point, moved: false, pointer: event.pointerId });
    view.need("hand");
  }
  function pinch() {
    const saved = now.path;
    now.gesture?.pans ? (now.gesture = null) : giveUp();
    if (saved && saved.kind !== "box") now.path = saved; // points that were set stay
    const [a, b] = [...fingers.values()];
    now.gesture = { pinches: true, quiet: true, last: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, far: Math.hypot(a.x - b.x, a.y - b.y) } };
  }
  function move(event) {
    const point = view.pointer(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, point);
    if (now.gesture?.pinches) {
      const [a, b] = [...fingers.values()];
      if (!b) return;
      const here = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, far: Math.hypot(a.x - b.x, a.y - b.y) }, { last } = now.gesture;
      view.pan(here.x - last.x, here.y - last.y);
      if (last.far > 0) view.zoom(here.far / last.far, here.x, here.y);
      return (now.gesture.last = here);
    }
    now.hover = view.toImage(point.x, point.y);
    if (now.gesture && event.pointerId !== now.gesture.pointer) return;
    if (now.gesture) {
      if (!now.gesture.moved && Math.hypot(point.x - now.gesture.from.x, point.y - now.gesture.from.y) < STILL && !now.gesture.strokes) return view.need("hand");
      now.gesture.moved = true;
      const all = now.gesture.strokes && event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event];
      for (const one of all) {
        const at = view.pointer(one);
        now.gesture.move?.(now.gesture.strokes ? view.toImage(at.x, at.y) : inside(view.toImage(at.x, at.y)), at, one);
      }
    } else if (now.cross) now.cross = null;
    pointed(event);
    view.need("hand");
  }
  function pointed(event) { // what the cursor says
    let cursor = { look: "grab", select: "default", brush: "none", erase: "none" }[now.tool] ?? "crosshair";
    const one = selected(), reach = (REACH[event.pointerType] ?? REACH.mouse) / view.scale;
    if (now.held || now.gesture?.pans) cursor = now.gesture ? "grabbing" : "grab";
    else if (!now.gesture && !now.path && one && one.kind !== "mask" && !api.readOnly && cursor !== "none") {
      const place = gripAt(one, now.hover, reach);
      if (place >= 0) ({ cursor } = gripsOf(one)[place]);
      else if (["box", "polygon"].includes(one.kind) && nearestEdge(one, now.hover.x, now.hover.y).distance <= reach) cursor = one.kind === "box" ? "move" : "copy";
    }
    if (stage.style.cursor !== cursor) stage.style.cursor = cursor;
  }
  function up(event) {
    const one = now.gesture;
    fingers.delete(event.pointerId);
    if (!one || (one.pointer !== undefined && one.pointer !== event.pointerId)) return;
    if (one.pinches && fingers.size) return;
    now.gesture = null;
    if (event.type === "pointercancel") return giveUp();
    one.end?.(one.moved);
    if (event.pointerType === "touch") now.hover = null;
    view.need("hand");
  }
  function wheel(event) {
    if (view.justScrolled() && !event.ctrlKey && !stage.contains(document.activeElement)) return; // the page was being scrolled
    event.preventDefault();
    const { x, y } = view.pointer(event), lines = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey) return view.pan(-(event.deltaX || event.deltaY) * lines, 0);
    view.zoom(Math.exp(-clamp(event.deltaY * lines, -240, 240) * (event.ctrlKey ? 0.01 : 0.002)), x, y);
    now.hover = view.toImage(x, y);
  }

  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", up);
  stage.addEventListener("pointercancel", up);
  stage.addEventListener("pointerleave", () => (now.gesture || ((now.hover = null), view.need("hand"))));
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("wheel", wheel, { passive: false });
}
