// What a person does to the answer: each action is an event, which changes the answer here and goes to Python.

const REST = 30_000; // ms: a longer rest between two movements is no attention

const newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join(""); // randomUUID: not on plain http

// Attention: the time between two movements, unless somebody has gone away in between.
function makeWatch() {
  let seconds = 0, last = performance.now();
  return {
    tick() {
      const now = performance.now();
      if (now - last < REST && !document.hidden) seconds += (now - last) / 1_000;
      last = now;
    },
    awake: () => performance.now() - last < REST && !document.hidden,
    take() {
      this.tick();
      const taken = Math.round(seconds * 1_000) / 1_000;
      seconds = 0;
      return taken;
    },
  };
}

function makeActions({ user, whose, readOnly, outbox, watch, entry, annotations, say, refresh }) {
  const gestures = new Map(); // event -> its stroke: undo takes back all of one

  function note(kind, data = {}, about = whose) {
    const one = entry();
    const event = { id: newId(), item: one.told.id, kind, whose: about, by: user, data, at: new Date().toISOString(), seconds: watch.take() };
    if (about === whose) {
      one.fold = foldEvent(one.fold, event); // throws before anything has happened
      one.events.push(event);
    }
    outbox.add({ ...event });
    return event;
  }
  function act(kind, data) {
    if (!entry() || readOnly) return;
    try {
      changeAnnotations(annotations(), { kind, data });
      if (entry().fold.state !== "open") note("reopen");
      note(kind, data);
    } catch (fault) {
      say(fault.message);
    }
    refresh();
  }
  // Several changes that are one to the person: undo takes all of them back.
  function stroke(changes) {
    const before = entry()?.events.length;
    for (const [kind, data] of changes) act(kind, data);
    const made = entry()?.events.slice(before).filter((event) => CHANGES.includes(event.kind)) ?? [];
    for (const event of made) gestures.set(event.id, made[0].id);
  }
  function strokes() { // of every change that can be undone, and of every one that can be made again
    const done = [], undone = [];
    for (const { id, kind } of entry().events) {
      if (CHANGES.includes(kind)) [undone.length] = [0, done.push(gestures.get(id) ?? id)];
      else if (kind === "undo" && done.length) undone.push(done.pop());
      else if (kind === "redo" && undone.length) done.push(undone.pop());
    }
    return { undo: done, redo: undone };
  }
  function step(kind) {
    const stack = entry() && !readOnly ? strokes()[kind] : [];
    if (!stack.length) return say(`Nothing to ${kind}.`);
    if (entry().fold.state !== "open") note("reopen");
    for (const stroke = stack.at(-1); stack.length && stack.at(-1) === stroke; stack.pop()) note(kind);
    refresh();
  }
  return { note, act, stroke, undo: () => step("undo"), redo: () => step("redo") };
}

// With what a person leaves an item.
function makeEnding({ project, review, readOnly, onlyClasses, now, entry, annotations, say }, { note }, { leave }, { ask }, { sayComment }) {
  function missing() { // what keeps the answer from being complete, in words
    if (now.surface.missing?.()) return now.surface.missing();
    if (onlyClasses && project.single && !annotations().length) return "Choose a class first.";
    return "";
  }
  function submit() {
    if (!entry() || readOnly) return;
    now.surface.settle?.();
    const lacks = missing();
    if (lacks) return say(lacks, true);
    sayComment();
    // what was agreed on and is accepted as it stands; everything else becomes final by what stands here now
    const kind = review && entry().fold.state === "submitted" ? "accept" : "submit";
    if (review ? entry().fold.state !== "accepted" : entry().fold.state !== "submitted") note(kind);
    leave();
  }
  function skip() {
    if (!entry() || readOnly) return;
    now.surface.settle?.();
    ask(review ? "Drop" : "Skip", review ? "why nobody can answer it; required" : "why; may stay empty", (reason) => {
      if (review && !reason) return say("Say why.", true);
      sayComment();
      note("skip", reason ? { reason } : {});
      leave();
    });
  }
  return { submit, skip };
}
