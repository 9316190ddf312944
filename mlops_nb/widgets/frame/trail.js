// From item to item: what this page has shown, and the one ahead, which is asked for before it is needed.

const RENEW = 60_000; // ms between two looks at how far the others are
const PICTURES = 30; // earlier pictures that are kept for going back

async function decodePicture(one) {
  try {
    one.picture = await createImageBitmap(new Blob([one.bytes]));
  } catch (fault) {
    one.problem = `This picture cannot be shown: ${fault.message}`;
  }
}
function dropPictures(trail, at) { // pixels are big, bytes are not
  trail.forEach((other, n) => {
    if (other.picture && n !== at && Math.abs(n - at) > 1) other.picture = (other.picture.close?.(), null);
    if (other.bytes && at - n > PICTURES) other.bytes = null;
  });
}
// An item as the page keeps it: what Python told, its picture, and the answer with what has not been stored yet.
function beginEntry(message, bytes, waiting) {
  const events = [...message.history], known = new Set(events.map((event) => event.id));
  events.push(...waiting.filter((event) => !known.has(event.id)));
  return { told: message, picture: null, bytes, events, fold: events.reduce(foldEvent, beginFold()), problem: message.problem ?? "", left: false };
}

function makeTrail({ project, whose, review, readOnly, outbox, watch, tell, now, entry, say, focus, root, refresh, showState }, { note }, stage, header, question) {
  let askedAt = 0, renewedAt = Date.now();
  let shownAt = 0; // when the person left the item before

  function want() {
    if (now.asking || now.ahead || readOnly) return;
    now.asking = true;
    askedAt = Date.now();
    tell({ ask: "next", hold: now.trail.filter((one) => !one.left).map((one) => one.told.id) }); // what was left may come again
  }
  const patience = setInterval(() => {
    if (now.asking && Date.now() - askedAt > WAIT * 2) now.asking = false;
    if (!now.asking && !now.ahead && (now.none || now.problem ? Date.now() - askedAt > LONGEST : !entry())) want();
    if (entry() && watch.awake() && Date.now() - renewedAt > RENEW) tell({ ask: "progress" }, (renewedAt = Date.now())); // keeps our lease, too
    showState();
  }, 1_000);

  async function arrive(message, buffers) {
    now.asking = false;
    const one = beginEntry(message, buffers?.[0] ?? null, outbox.of(message.id).filter((event) => event.whose === whose));
    if (one.bytes) await decodePicture(one);
    const place = now.trail.findIndex((other) => other.told.id === message.id);
    if (place >= 0 && !message.asked && !now.trail[place].left) return; // it is here, and somebody may be drawing on it
    if (place >= 0 && (message.asked || place === now.at)) {
      one.left = message.asked && now.trail[place].left;
      now.trail[place] = one;
      if (place === now.at) show();
      return;
    }
    if (place >= 0) now.trail.splice(place, 1); // it was left, and has come back: a reviewer has sent it
    if (place >= 0 && place < now.at) now.at -= 1;
    if (!entry()) {
      now.at = now.trail.push(one) - 1;
      show();
    } else now.ahead = one;
    now.none = "";
    stage.show();
    if (!now.ahead && entry()) want();
  }
  function leave() {
    entry().left = true;
    header.close();
    forward();
  }
  function forward() {
    shownAt = performance.now();
    if (now.at < now.trail.length - 1) now.at += 1;
    else if (now.ahead) {
      now.at = now.trail.push(now.ahead) - 1;
      now.ahead = null;
    } else now.at = now.trail.length; // nothing is here yet
    show();
    want();
  }
  async function go(step) {
    const to = now.at + step, { trail } = now;
    if (to < 0 || to > trail.length || (to === trail.length && !now.ahead && step > 0)) return say(step < 0 ? "This is the first item of this session." : "This is the last item.");
    now.surface.settle?.();
    if (to === trail.length) return forward();
    now.at = to;
    const one = entry();
    if (!one.picture && one.bytes) await decodePicture(one);
    else if (!one.picture && !one.problem && project.medium === "image") tell({ ask: "item", item: one.told.id }); // given up to save memory
    if (one === entry()) show();
  }
  function show() {
    now.selected = "";
    question.close();
    dropPictures(now.trail, now.at);
    stage.show();
    const one = entry();
    if (!one) {
      refresh();
      if (stage.stage.contains(document.activeElement)) focus(); // else the next item's keys would go nowhere
      return;
    }
    watch.take();
    if (!readOnly && !review && !one.events.some((event) => event.kind === "open")) {
      const start = one.told.start ?? [];
      note("open", start.length ? { annotations: start } : {});
    }
    now.people = colourPeople(one.told.others);
    now.surface.show({ id: one.told.id, data: one.told.data, why: one.told.why, model: one.told.model }, one.picture);
    now.surface.cancel?.();
    refresh();
    if (root.contains(document.activeElement)) focus();
    root.dataset.item = one.told.id;
    root.dataset.took = shownAt ? (performance.now() - shownAt).toFixed(1) : "";
  }
  return { want, arrive, leave, go, show, close: () => clearInterval(patience) };
}
