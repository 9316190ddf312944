// Boxes, polygons and key points in pixels of the image: where they are, where they can be gripped, what a change makes of them.

const KIND_WORDS = { box: "box", polygon: "polygon", mask: "mask", points: "points" };
const BOX_GRIPS = [[0, 0, "nwse"], [0.5, 0, "ns"], [1, 0, "nesw"], [1, 0.5, "ew"], [1, 1, "nwse"], [0.5, 1, "ns"], [0, 1, "nesw"], [0, 0.5, "ew"]];
const GRIP_WORDS = ["top left corner", "top edge", "top right corner", "right edge", "bottom right corner", "bottom edge", "bottom left corner", "left edge"];

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
function tenth(value) {
  return Math.round(value * 10) / 10;
}
function boundsOf(annotation, facts) {
  if (annotation.kind === "box") return { left: annotation.x, top: annotation.y, right: annotation.x + annotation.width, bottom: annotation.y + annotation.height };
  if (annotation.kind === "mask") return facts(annotation);
  const points = annotation.kind === "polygon" ? annotation.rings.flat() : annotation.points.filter(([, , seen]) => seen);
  if (!points.length) return null;
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  return { left: Math.min(...xs), top: Math.min(...ys), right: Math.max(...xs), bottom: Math.max(...ys) };
}
// What a person who does not see the picture is told of a shape, and what stands in the list.
function describeShape(annotation, number, facts) {
  const bounds = boundsOf(annotation, facts), round = (value) => String(Math.round(value));
  const place = bounds ? `${round(bounds.right - bounds.left)} by ${round(bounds.bottom - bounds.top)} at ${round(bounds.left)}, ${round(bounds.top)}` : "nowhere";
  const parts = { polygon: () => `${annotation.rings.flat().length} points`, mask: () => `${facts(annotation).area.toLocaleString("en")} pixels`,
    points: () => `${annotation.points.filter(([, , seen]) => seen).length} of ${annotation.points.length}` };
  const words = [`${KIND_WORDS[annotation.kind]} ${number}${annotation.label ? ` ${annotation.label}` : ""}`, ...(parts[annotation.kind] ? [parts[annotation.kind]()] : []), place];
  if (annotation.source) words.push(typeof annotation.score === "number" ? `proposed ${annotation.score.toFixed(2)}` : "proposed");
  if (annotation.crowd) words.push("crowd");
  return { name: words.join(", "), size: parts[annotation.kind] ? parts[annotation.kind]() : place.split(" at ")[0].replace(" by ", " × ") };
}

// The points at which a shape can be gripped, in the order in which the keyboard goes through them.
function gripsOf(annotation, names = []) {
  if (annotation.kind === "box")
    return BOX_GRIPS.map(([right, down, cursor], place) => ({ x: annotation.x + right * annotation.width, y: annotation.y + down * annotation.height, cursor: `${cursor}-resize`, words: GRIP_WORDS[place] }));
  if (annotation.kind === "polygon") {
    const total = annotation.rings.flat().length;
    return annotation.rings.flatMap((ring, part) => ring.map(([x, y], place) => ({ x, y, part, place, cursor: "move", words: `point ${place + 1} of ${total}` })));
  }
  if (annotation.kind === "points")
    return annotation.points.map(([x, y, seen], place) => ({ x, y, seen, place, cursor: "move", words: names[place] ?? `point ${place + 1}` }));
  return [];
}
// The fields of a shape of which one grip was brought to a place.
function moveGrip(annotation, index, x, y, size) {
  [x, y] = [clamp(x, 0, size.width), clamp(y, 0, size.height)];
  if (annotation.kind === "polygon") {
    const grip = gripsOf(annotation)[index];
    return { rings: annotation.rings.map((ring, part) => ring.map((point, place) => (part === grip.part && place === grip.place ? [tenth(x), tenth(y)] : point))) };
  }
  if (annotation.kind === "points") return { points: annotation.points.map((point, place) => (place === index ? [tenth(x), tenth(y), point[2] || 2] : point)) };
  const [right, down] = BOX_GRIPS[index], { left, top, right: far, bottom } = boundsOf(annotation);
  const [gx, gy] = [Math.round(x), Math.round(y)];
  return boxBetween(right === 0 ? gx : left, down === 0 ? gy : top, right === 1 ? gx : far, down === 1 ? gy : bottom, size);
}
// The fields of a box with two opposite corners, at least a pixel wide and high, inside of the image.
function boxBetween(x1, y1, x2, y2, size) {
  const [x, y] = [Math.min(x1, x2, Math.ceil(size.width) - 1), Math.min(y1, y2, Math.ceil(size.height) - 1)];
  return { x, y, width: Math.max(1, Math.max(x1, x2) - x), height: Math.max(1, Math.max(y1, y2) - y) };
}
// The fields of a shape moved by whole or broken pixels, as far as the image goes.
function shiftShape(annotation, right, down, size, bounds) {
  [right, down] = [clamp(right, -bounds.left, size.width - bounds.right), clamp(down, -bounds.top, size.height - bounds.bottom)];
  if (annotation.kind === "box") return { x: tenth(annotation.x + right), y: tenth(annotation.y + down), width: annotation.width, height: annotation.height };
  if (annotation.kind === "polygon") return { rings: annotation.rings.map((ring) => ring.map(([x, y]) => [tenth(x + right), tenth(y + down)])) };
  return { points: annotation.points.map(([x, y, seen]) => (seen ? [tenth(x + right), tenth(y + down), seen] : [0, 0, 0])) };
}
// The fields that say where a shape is.
function placeOf({ kind, x, y, width, height, rings, points, rle }) {
  return { box: { x, y, width, height }, polygon: { rings }, points: { points }, mask: { rle } }[kind];
}
function withPoint(rings, part, place, point) { // after the one in this place
  return rings.map((ring, at) => (at === part ? [...ring.slice(0, place + 1), point.map(tenth), ...ring.slice(place + 1)] : ring));
}
function withoutPoint(rings, part, place) { // a ring of two points is none
  return rings.map((ring, at) => (at === part ? ring.filter((_, other) => other !== place) : ring)).filter((ring) => ring.length > 2);
}

// --- which shape is meant ---

function nearestOn(a, b, x, y) {
  const [ux, uy] = [b[0] - a[0], b[1] - a[1]], far = ux * ux + uy * uy;
  const part = far ? clamp(((x - a[0]) * ux + (y - a[1]) * uy) / far, 0, 1) : 0;
  const point = [a[0] + part * ux, a[1] + part * uy];
  return { point, distance: Math.hypot(x - point[0], y - point[1]) };
}
function edgesOf(annotation, skeleton = []) {
  if (annotation.kind === "box") {
    const { left, top, right, bottom } = boundsOf(annotation);
    return [[[left, top], [right, top]], [[right, top], [right, bottom]], [[right, bottom], [left, bottom]], [[left, bottom], [left, top]]].map(([a, b], place) => ({ a, b, part: 0, place }));
  }
  if (annotation.kind === "polygon") return annotation.rings.flatMap((ring, part) => ring.map((a, place) => ({ a, b: ring[(place + 1) % ring.length], part, place })));
  if (annotation.kind === "points")
    return skeleton.filter(([one, other]) => annotation.points[one]?.[2] && annotation.points[other]?.[2]).map(([one, other]) => ({ a: annotation.points[one], b: annotation.points[other] }));
  return [];
}
function nearestEdge(annotation, x, y, skeleton) {
  return edgesOf(annotation, skeleton).map((edge) => ({ ...edge, ...nearestOn(edge.a, edge.b, x, y) })).sort((one, other) => one.distance - other.distance)[0];
}
function insideRing(ring, x, y) {
  let inside = false;
  ring.forEach(([x1, y1], place) => {
    const [x2, y2] = ring[(place + 1) % ring.length];
    if ((y1 <= y) !== (y2 <= y) && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) inside = !inside;
  });
  return inside;
}
// How a place meets a shape: 2 on its line or points, 1 inside, 0 not.
function meets(annotation, x, y, reach, skeleton, facts) {
  if (annotation.kind === "mask") return facts(annotation).has(Math.floor(x), Math.floor(y)) ? 1 : 0;
  if (gripsOf(annotation).some((grip) => grip.seen !== 0 && Math.hypot(grip.x - x, grip.y - y) <= reach)) return 2;
  if ((nearestEdge(annotation, x, y, skeleton)?.distance ?? Infinity) <= reach) return 2;
  if (annotation.kind === "box") return x >= annotation.x && x <= annotation.x + annotation.width && y >= annotation.y && y <= annotation.y + annotation.height ? 1 : 0;
  return annotation.kind === "polygon" && annotation.rings.some((ring) => insideRing(ring, x, y)) ? 1 : 0;
}
function ringArea(ring) {
  return Math.abs(ring.reduce((sum, [x1, y1], place) => {
    const [x2, y2] = ring[(place + 1) % ring.length];
    return sum + x1 * y2 - x2 * y1;
  }, 0)) / 2;
}
function gripAt(annotation, { x, y }, reach) { // -1: none
  let best = -1, least = reach;
  gripsOf(annotation).forEach((one, place) => {
    const far = Math.hypot(one.x - x, one.y - y);
    if (one.seen !== 0 && far <= least) [best, least] = [place, far];
  });
  return best;
}
