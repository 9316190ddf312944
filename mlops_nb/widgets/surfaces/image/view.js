// The picture and what is drawn over it: three canvases, so that a moved pointer paints the uppermost only, once per frame of the
// screen, and asks the page for no layout. Coordinates of shapes are pixels of the image; the view says where these are on the stage.

const CLOSEST = 48; // screen pixels per pixel of the image
const CRISP = 6; // from so many screen pixels per pixel on, the pixels are seen as squares
const INK = "rgba(12, 14, 18, 0.72)", PAPER = "#ffffff";
const TAG_FONT = "600 11px system-ui, sans-serif", FIGURE_FONT = "500 11px ui-monospace, SFMono-Regular, Menlo, monospace";

function makeView(stage, painters) {
  const layers = Object.keys(painters).map((name) => ({ name, canvas: make("canvas", { className: name, "aria-hidden": "true" }), wanted: true }));
  for (const layer of layers) {
    layer.context = layer.canvas.getContext("2d");
    stage.append(layer.canvas);
  }
  const view = { scale: 1, left: 0, top: 0, wide: 0, high: 0, size: { width: 1, height: 1 }, levels: [], fitted: true, frames: 0 };
  let asked = 0, place = null, scrolled = 0;

  view.need = (...names) => {
    for (const layer of layers) if (!names.length || names.includes(layer.name)) layer.wanted = true;
    if (!asked) asked = requestAnimationFrame(paint);
  };
  function paint() {
    asked = 0;
    view.frames++;
    const ratio = window.devicePixelRatio || 1;
    for (const { name, canvas, context, wanted } of layers) {
      if (!wanted) continue;
      const [across, down] = [Math.round(view.wide * ratio), Math.round(view.high * ratio)];
      if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, view.wide, view.high);
      painters[name](context, view);
    }
    for (const layer of layers) layer.wanted = false;
  }
  function moved() {
    // some of the picture always stays in sight
    const { width, height } = view.size, keep = (start, length, room) => clamp(start, Math.min(60, room / 2) - length, room - Math.min(60, room / 2));
    view.left = keep(view.left, width * view.scale, view.wide);
    view.top = keep(view.top, height * view.scale, view.high);
    for (const [key, value] of [["scale", view.scale], ["left", view.left], ["top", view.top]]) stage.dataset[key] = String(value);
    view.need();
    view.changed?.();
  }
  view.toImage = (x, y) => ({ x: (x - view.left) / view.scale, y: (y - view.top) / view.scale });
  view.toStage = (x, y) => [view.left + x * view.scale, view.top + y * view.scale];
  view.pointer = (event) => {
    place ??= stage.getBoundingClientRect();
    return { x: event.clientX - place.left - stage.clientLeft, y: event.clientY - place.top - stage.clientTop };
  };
  view.pan = (right, down) => {
    [view.left, view.top, view.fitted] = [view.left + right, view.top + down, false];
    moved();
  };
  view.zoom = (factor, x = view.wide / 2, y = view.high / 2) => {
    const whole = fitting(), scale = clamp(view.scale * factor, Math.min(whole / 2, 1), Math.max(CLOSEST, whole));
    const { x: px, y: py } = view.toImage(x, y);
    [view.scale, view.left, view.top, view.fitted] = [scale, x - px * scale, y - py * scale, false];
    moved();
  };
  function fitting() {
    const edge = 12;
    return Math.max(0.001, Math.min((view.wide - 2 * edge) / view.size.width, (view.high - 2 * edge) / view.size.height, CLOSEST));
  }
  view.fit = () => {
    const scale = fitting();
    [view.scale, view.left, view.top] = [scale, (view.wide - view.size.width * scale) / 2, (view.high - view.size.height * scale) / 2];
    view.fitted = true;
    moved();
  };
  view.reveal = (x, y) => {
    const [sx, sy] = view.toStage(x, y), edge = 24, beyond = (value, room) => (value < edge ? edge - value : value > room - edge ? room - edge - value : 0);
    const [right, down] = [beyond(sx, view.wide), beyond(sy, view.high)];
    if (right || down) view.pan(right, down);
  };
  view.resize = () => {
    place = null;
    const [wide, high] = [stage.clientWidth, stage.clientHeight];
    if (wide === view.wide && high === view.high) return;
    [view.wide, view.high] = [wide, high];
    view.fitted ? view.fit() : moved();
  };
  view.forget = () => (place = null);
  view.justScrolled = () => performance.now() - scrolled < 250;
  const onScroll = () => ((place = null), (scrolled = performance.now()));
  window.addEventListener("scroll", onScroll, { capture: true, passive: true });
  const watcher = new ResizeObserver(view.resize);
  watcher.observe(stage);

  // Smaller copies of the picture, each half of the one before: a 12-megapixel photograph is then painted from what is seen of it.
  view.show = async (picture, size) => {
    const own = view.levels.slice(1), levels = picture ? [picture] : [];
    [view.levels, view.size] = [levels, size];
    for (const level of own) level.close?.();
    view.fit();
    while (levels.length && view.levels === levels && levels.at(-1).width > 700 && levels.at(-1).height > 500) {
      const last = levels.at(-1);
      try {
        const half = await createImageBitmap(last, { resizeWidth: Math.round(last.width / 2), resizeHeight: Math.round(last.height / 2), resizeQuality: "medium" });
        if (view.levels !== levels) return half.close();
        levels.push(half);
      } catch {
        return; // the picture was taken away meanwhile
      }
    }
    view.need("picture");
  };
  view.close = () => {
    cancelAnimationFrame(asked);
    watcher.disconnect();
    window.removeEventListener("scroll", onScroll, { capture: true });
    for (const level of view.levels.slice(1)) level.close?.();
    view.levels = [];
  };
  return view;
}

function paintPicture(context, view) {
  const wide = view.size.width * view.scale, level = view.levels.findLast((one) => one.width >= wide * (window.devicePixelRatio || 1) - 1) ?? view.levels[0];
  if (!level) return;
  context.imageSmoothingEnabled = view.scale < CRISP;
  context.imageSmoothingQuality = "medium";
  context.drawImage(level, view.left, view.top, wide, view.size.height * view.scale);
}

// --- shapes ---

function trace(context, view, points, closed) {
  points.forEach(([x, y], place) => context[place ? "lineTo" : "moveTo"](...view.toStage(x, y)));
  if (closed) context.closePath();
}
function outline(context, colour, width, dash = [], ground = INK) {
  [context.lineJoin, context.lineCap] = ["round", dash.length ? "butt" : "round"];
  context.setLineDash([]);
  [context.strokeStyle, context.lineWidth] = [ground, width + 2];
  context.stroke();
  context.setLineDash(dash);
  [context.strokeStyle, context.lineWidth] = [colour, width];
  context.stroke();
  context.setLineDash([]);
}
function tint(colour, alpha) {
  return colour + Math.round(alpha * 255).toString(16).padStart(2, "0");
}
function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#101317" : PAPER;
}
// look: {colour, tag, selected, dash, fill, grip (which is held; -1: none), sheet (of a mask), skeleton, names}
function paintShape(context, view, annotation, look) {
  const width = look.selected ? 2.5 : look.thin ? 1.5 : 2;
  if (annotation.kind === "mask") {
    const { canvas, left, top, step } = look.sheet, [x, y] = view.toStage(left, top);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = look.thin ? 0.45 : 1;
    context.drawImage(canvas, x, y, canvas.width * step * view.scale, canvas.height * step * view.scale);
    context.globalAlpha = 1;
  } else {
    context.beginPath();
    if (annotation.kind === "points") for (const { a, b } of edgesOf(annotation, look.skeleton)) trace(context, view, [a, b]);
    else for (const part of annotation.kind === "box" ? [edgesOf(annotation).map(({ a }) => a)] : annotation.rings) trace(context, view, part, true);
    if (look.fill && annotation.kind !== "points") {
      context.fillStyle = tint(look.colour, look.fill);
      context.fill();
    }
    outline(context, look.colour, width, look.dash, look.thin ? "rgba(255, 255, 255, 0.6)" : INK);
    if (annotation.kind === "points") for (const grip of gripsOf(annotation)) if (grip.seen) paintPoint(context, view, grip, look.colour, look.selected ? 5 : 3.5);
  }
  if (look.selected && look.grips) paintGrips(context, view, annotation, look);
}
// A key point: filled where it is visible, a ring where it is hidden.
function paintPoint(context, view, grip, colour, radius) {
  context.beginPath();
  context.arc(...view.toStage(grip.x, grip.y), radius, 0, 7);
  context.fillStyle = grip.seen === 2 ? colour : INK;
  context.fill();
  outline(context, grip.seen === 2 ? PAPER : colour, 1.5);
}
function paintGrips(context, view, annotation, look) {
  let last = [-99, -99]; // of many points that lie close together only some are drawn
  gripsOf(annotation).forEach((grip, place) => {
    if (grip.seen === 0) return;
    const [x, y] = view.toStage(grip.x, grip.y), held = place === look.grip, half = held ? 6 : 4;
    if (!held && annotation.kind === "polygon" && Math.hypot(x - last[0], y - last[1]) < 9) return;
    last = [x, y];
    if (annotation.kind === "points" && !held) return;
    context.beginPath();
    annotation.kind === "box" ? context.rect(x - half, y - half, 2 * half, 2 * half) : context.arc(x, y, half, 0, 7);
    context.fillStyle = held ? look.colour : PAPER;
    context.fill();
    outline(context, held ? PAPER : look.colour, 1.5);
  });
}
// A name on a ground of its colour, above the place or, where there is no room, below.
function paintTag(context, view, x, y, text, colour, font = TAG_FONT) {
  context.font = font;
  const wide = Math.ceil(context.measureText(text).width) + 10, high = 17;
  const left = clamp(x - 1, 0, Math.max(0, view.wide - wide)), top = y - high - 3 < 0 ? clamp(y + 3, 0, view.high - high) : Math.min(y - high - 3, view.high - high);
  context.beginPath();
  context.roundRect(left, top, wide, high, 3);
  context.fillStyle = colour;
  context.fill();
  context.fillStyle = colour === INK ? PAPER : inkOn(colour);
  context.textBaseline = "middle";
  context.fillText(text, left + 5, top + high / 2 + 0.5);
}
// Lines through a place, across the whole stage; `strong`: the crosshair that the keyboard moves.
function paintCross(context, view, x, y, strong) {
  const [sx, sy] = view.toStage(x, y), gap = strong ? 9 : 0;
  context.beginPath();
  for (const [x1, y1, x2, y2] of [[0, sy, sx - gap, sy], [sx + gap, sy, view.wide, sy], [sx, 0, sx, sy - gap], [sx, sy + gap, sx, view.high]]) {
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
  }
  [context.strokeStyle, context.lineWidth] = ["rgba(12, 14, 18, 0.4)", strong ? 3.5 : 2];
  context.stroke();
  [context.strokeStyle, context.lineWidth] = [strong ? "#ffd54a" : "rgba(255, 255, 255, 0.8)", strong ? 1.5 : 1];
  context.stroke();
  if (!strong) return;
  context.beginPath();
  context.arc(sx, sy, gap, 0, 7);
  outline(context, "#ffd54a", 1.5);
  context.beginPath();
  context.arc(sx, sy, 1.5, 0, 7);
  context.fillStyle = "#ffd54a";
  context.fill();
}
