// Masks: one byte for each pixel, column by column, as COCO's run lengths count them. A pixel belongs to a stroke or to an outline
// when its centre does. A raster knows the rectangle outside of which it is empty, so that what follows costs what was painted.

function makeRaster(width, height) {
  return { width, height, data: new Uint8Array(width * height), left: width, top: height, right: 0, bottom: 0 };
}
function stretch(raster, left, top, right, bottom) {
  raster.left = Math.min(raster.left, left);
  raster.top = Math.min(raster.top, top);
  raster.right = Math.max(raster.right, right);
  raster.bottom = Math.max(raster.bottom, bottom);
}
function fillColumn(raster, x, from, to, value) {
  const first = Math.max(0, Math.ceil(from - 0.5)), last = Math.min(raster.height - 1, Math.floor(to - 0.5));
  if (last < first) return;
  raster.data.fill(value, x * raster.height + first, x * raster.height + last + 1);
  if (value) stretch(raster, x, first, x + 1, last + 1);
}
// Paint all pixels that are at most `radius` away from the line between two points; returns the rectangle in which they are.
function paintStroke(raster, a, b, radius, value) {
  const right = [b.x - a.x, b.y - a.y], length = Math.hypot(...right), far = length * length, wide = radius * length;
  const first = Math.max(0, Math.floor(Math.min(a.x, b.x) - radius)), last = Math.min(raster.width - 1, Math.ceil(Math.max(a.x, b.x) + radius));
  for (let x = first; x <= last; x++) {
    const centre = x + 0.5;
    let from = Infinity, to = -Infinity;
    for (const end of [a, b]) {
      const reach = radius * radius - (centre - end.x) ** 2;
      if (reach < 0) continue;
      from = Math.min(from, end.y - Math.sqrt(reach));
      to = Math.max(to, end.y + Math.sqrt(reach));
    }
    if (length > 0) {
      const [ux, uy] = right, along = (centre - a.x) * ux, across = (centre - a.x) * uy;
      let low = -Infinity, high = Infinity; // of y - a.y, between both ends and both sides
      const between = (one, other) => ((low = Math.max(low, Math.min(one, other))), (high = Math.min(high, Math.max(one, other))));
      if (uy !== 0) between(-along / uy, (far - along) / uy);
      else if (along < 0 || along > far) high = -Infinity;
      if (ux !== 0) between((across - wide) / ux, (across + wide) / ux);
      else if (Math.abs(across) > wide) high = -Infinity;
      if (low <= high) [from, to] = [Math.min(from, a.y + low), Math.max(to, a.y + high)];
    }
    fillColumn(raster, x, from, to, value);
  }
  const top = Math.max(0, Math.floor(Math.min(a.y, b.y) - radius)), bottom = Math.min(raster.height, Math.ceil(Math.max(a.y, b.y) + radius) + 1);
  return { left: first, top, right: last + 1, bottom };
}
// Paint what is inside of one ring of points (where it crosses itself: inside by turns).
function paintRing(raster, ring, value) {
  const xs = ring.map(([x]) => x), first = Math.max(0, Math.floor(Math.min(...xs))), last = Math.min(raster.width - 1, Math.ceil(Math.max(...xs)));
  for (let x = first; x <= last; x++) {
    const centre = x + 0.5, crossings = [];
    ring.forEach(([x1, y1], place) => {
      const [x2, y2] = ring[(place + 1) % ring.length];
      if ((x1 <= centre) !== (x2 <= centre)) crossings.push(y1 + ((centre - x1) / (x2 - x1)) * (y2 - y1));
    });
    crossings.sort((one, other) => one - other);
    for (let n = 0; n + 1 < crossings.length; n += 2) fillColumn(raster, x, crossings[n], crossings[n + 1], value);
  }
}
// Paint every empty region that does not reach the outside of the mask; returns how many pixels that were.
function fillHoles(raster) {
  const { left, top, right, bottom, data, height } = raster, wide = right - left + 2, high = bottom - top + 2;
  if (right <= left) return 0;
  const outside = new Uint8Array(wide * high), todo = new Int32Array(wide * high); // a frame of one pixel around
  for (let x = left; x < right; x++)
    for (let y = top; y < bottom; y++) if (data[x * height + y]) outside[(x - left + 1) * high + y - top + 1] = 2;
  let known = 1;
  outside[0] = 1;
  for (let next = 0; next < known; next++) {
    const at = todo[next], row = at % high;
    for (const to of [row > 0 ? at - 1 : -1, row < high - 1 ? at + 1 : -1, at - high, at + high])
      if (to >= 0 && to < outside.length && !outside[to]) [outside[to], todo[known++]] = [1, to];
  }
  let filled = 0;
  for (let x = left; x < right; x++)
    for (let y = top; y < bottom; y++)
      if (!outside[(x - left + 1) * high + y - top + 1]) (data[x * height + y] = 1), filled++;
  return filled;
}
function shiftRaster(raster, right, down) {
  const moved = makeRaster(raster.width, raster.height);
  const from = Math.max(raster.top, -down), to = Math.min(raster.bottom, raster.height - down);
  for (let x = Math.max(raster.left, -right); x < Math.min(raster.right, raster.width - right) && from < to; x++) {
    moved.data.set(raster.data.subarray(x * raster.height + from, x * raster.height + to), (x + right) * raster.height + from + down);
    stretch(moved, x + right, from + down, x + right + 1, to + down);
  }
  return moved;
}

// --- run lengths ---

function encodeRaster(raster) {
  const limit = raster.right * raster.height, data = raster.data.subarray(0, limit), counts = [];
  let at = 0, told = 0;
  for (at = raster.left * raster.height + raster.top; at < limit; ) {
    const begin = data.indexOf(1, at);
    if (begin < 0) break;
    const end = data.indexOf(0, begin);
    at = end < 0 ? limit : end;
    counts.push(begin - told, at - begin);
    told = at;
  }
  if (!counts.length) return null; // nothing is painted
  const rest = raster.data.length - told;
  return { size: [raster.height, raster.width], counts: compressRuns(rest ? [...counts, rest] : counts) };
}
function decodeRle(rle) {
  const [height, width] = rle.size, raster = makeRaster(width, height);
  let at = 0;
  runsOf(rle).forEach((run, place) => {
    const end = Math.min(at + run, raster.data.length);
    if (place % 2 && end > at) {
      raster.data.fill(1, at, end);
      const first = Math.floor(at / height), last = Math.floor((end - 1) / height);
      stretch(raster, first, first === last ? at % height : 0, last + 1, first === last ? ((end - 1) % height) + 1 : height);
    }
    at = end;
  });
  return raster;
}
function runsOf(rle) {
  return typeof rle.counts === "string" ? expandRuns(rle.counts) : rle.counts;
}
// COCO's text of run lengths: differences to the run before the last, five bits to a character, the sixth says that more follow.
function compressRuns(counts) {
  let text = "";
  counts.forEach((count, place) => {
    let rest = place > 2 ? count - counts[place - 2] : count, more = true;
    while (more) {
      let bits = rest & 31;
      rest >>= 5;
      more = bits & 16 ? rest !== -1 : rest !== 0;
      text += String.fromCharCode((more ? bits | 32 : bits) + 48);
    }
  });
  return text;
}
function expandRuns(text) {
  const counts = [];
  for (let at = 0; at < text.length; ) {
    let value = 0, shift = 0, bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32 && at < text.length);
    if (bits & 16 && shift < 32) value |= -1 << shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

// --- what is seen of a mask ---

const PICTURE_OF_MASK = 4_000_000; // pixels that the picture of a mask which is not worked on has at most

// A canvas with a mask in one colour, its edge stronger; `whole`: as large as the image, so that it can be painted on.
function pictureMask(raster, colour, whole) {
  const [left, top, right, bottom] = whole ? [0, 0, raster.width, raster.height] : [raster.left, raster.top, raster.right, raster.bottom];
  const area = Math.max(1, (right - left) * (bottom - top)), step = whole ? 1 : Math.max(1, Math.ceil(Math.sqrt(area / PICTURE_OF_MASK)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.ceil((right - left) / step));
  canvas.height = Math.max(1, Math.ceil((bottom - top) / step));
  const sheet = { canvas, context: canvas.getContext("2d"), left, top, step, raster, colour };
  repictureMask(sheet, raster);
  return sheet;
}
function repictureMask(sheet, touched) {
  const { raster, step, context, colour } = sheet, { data, height } = raster;
  const first = Math.max(0, Math.floor((touched.left - 1 - sheet.left) / step)), upper = Math.max(0, Math.floor((touched.top - 1 - sheet.top) / step));
  const wide = Math.min(sheet.canvas.width, Math.ceil((touched.right + 1 - sheet.left) / step)) - first;
  const high = Math.min(sheet.canvas.height, Math.ceil((touched.bottom + 1 - sheet.top) / step)) - upper;
  if (wide <= 0 || high <= 0) return;
  const image = context.createImageData(wide, high), pixels = new Uint32Array(image.data.buffer); // bytes: red, green, blue, alpha
  const solid = parseInt(colour.slice(5, 7) + colour.slice(3, 5) + colour.slice(1, 3), 16);
  const inside = (solid | (112 << 24)) >>> 0, edge = (solid | (235 << 24)) >>> 0;
  for (let column = 0; column < wide; column++) {
    const x = sheet.left + (first + column) * step;
    for (let row = 0; row < high; row++) {
      const y = sheet.top + (upper + row) * step, at = x * height + y;
      if (!data[at]) continue;
      const within = x >= step && data[at - step * height] && x + step < raster.width && data[at + step * height] && y >= step && data[at - step] && y + step < height && data[at + step];
      pixels[row * wide + column] = within ? inside : edge;
    }
  }
  context.putImageData(image, first, upper);
}

// --- the masks of an item ---

// Keeps what is computed of each mask while it stays as it is, and the raster of the one that is worked on.
function makeMasks(view, colourOf) {
  const sheets = new Map(), runs = new Map();
  let work = null, touched = null; // work: {id, key, raster, sheet}; touched: of its sheet, not drawn yet
  const keys = new WeakMap(); // run lengths never change, so each is read once
  function keyOf(rle) {
    if (!keys.has(rle)) keys.set(rle, `${rle.size.join(" ")} ${typeof rle.counts === "string" ? rle.counts : rle.counts.join()}`);
    return keys.get(rle);
  }

  function coloured(colour) {
    if (work.sheet.colour !== colour) {
      work.sheet.colour = colour;
      repictureMask(work.sheet, work.raster);
    }
    return work.sheet;
  }
  const masks = {
    // Where a mask is, how many pixels it has, whether one is among them.
    facts({ id, rle }) {
      const key = keyOf(rle), known = runs.get(id);
      if (known?.key === key) return known;
      runs.set(id, { key, ...measureRuns(rle) });
      return runs.get(id);
    },
    sheet({ id, label, rle }, colour, name = id, live = false) {
      if (work?.id === name && (live || work.key === keyOf(rle))) return coloured(colour);
      const key = `${colour} ${keyOf(rle)}`, known = sheets.get(name);
      if (known?.key !== key) sheets.set(name, { ...pictureMask(decodeRle(rle), colour, false), key, raster: null });
      return sheets.get(name);
    },
    // Take up a mask, or a new one without run lengths: {raster}, to be painted on.
    open({ id, label, rle }) {
      const key = rle ? keyOf(rle) : "";
      if (work?.id === id && work.key === key) return work;
      const raster = rle ? decodeRle(rle) : makeRaster(view.size.width, view.size.height);
      sheets.delete(id);
      touched = null;
      return (work = { id, key, raster, sheet: pictureMask(raster, colourOf(label), true) });
    },
    touch({ left, top, right, bottom }) {
      const old = touched ?? { left, top, right, bottom };
      touched = { left: Math.min(old.left, left), top: Math.min(old.top, top), right: Math.max(old.right, right), bottom: Math.max(old.bottom, bottom) };
    },
    refresh() {
      if (work && touched) repictureMask(work.sheet, touched);
      touched = null;
    },
    // The run lengths of what was painted; null where nothing is left.
    close() {
      masks.refresh();
      const rle = encodeRaster(work.raster);
      rle ? (work.key = keyOf(rle)) : masks.drop();
      return rle;
    },
    drop: () => ([work, touched] = [null, null]),
    clear() {
      masks.drop();
      sheets.clear();
      runs.clear();
    },
  };
  return masks;
}
function measureRuns(rle) {
  const [high] = rle.size, starts = [], found = { left: Infinity, top: Infinity, right: 0, bottom: 0, area: 0 };
  let at = 0;
  runsOf(rle).forEach((run, place) => {
    starts.push(at);
    if (place % 2 && run) {
      const [first, last] = [Math.floor(at / high), Math.floor((at + run - 1) / high)], one = first === last;
      found.area += run;
      [found.left, found.right] = [Math.min(found.left, first), Math.max(found.right, last + 1)];
      [found.top, found.bottom] = [Math.min(found.top, one ? at % high : 0), Math.max(found.bottom, one ? ((at + run - 1) % high) + 1 : high)];
    }
    at += run;
  });
  if (!found.area) Object.assign(found, { left: 0, top: 0 });
  found.has = (x, y) => {
    const pixel = x * high + y;
    let [low, above] = [0, starts.length];
    while (low + 1 < above) starts[(low + above) >> 1] <= pixel ? (low = (low + above) >> 1) : (above = (low + above) >> 1);
    return x >= found.left && x < found.right && y >= found.top && y < found.bottom && low % 2 === 1;
  };
  return found;
}
