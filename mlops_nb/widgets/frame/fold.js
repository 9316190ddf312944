// The answer as it follows from events: the same as `fold` in answers.py.

const ENDS = { submit: "submitted", skip: "skipped", reopen: "open", accept: "accepted", reject: "rejected" };
const CHANGES = ["draw", "move", "label", "delete", "adopt"];
const DEFAULTS = { source: "", score: null, crowd: false, candidate: "" };

function plainAnnotation(annotation) {
  const kept = Object.entries(annotation).filter(([key, value]) => key in DEFAULTS ? value !== DEFAULTS[key] : key !== "attributes" || Object.keys(value).length);
  return { ...Object.fromEntries(kept), label: annotation.label ?? "" };
}
function changeAnnotations(annotations, { kind, data }) {
  if (kind === "adopt") return data.annotations.map(plainAnnotation);
  if (kind === "draw") {
    const drawn = plainAnnotation(data.annotation), place = annotations.findIndex((one) => one.id === drawn.id);
    return place < 0 ? [...annotations, drawn] : annotations.map((one, n) => (n === place ? drawn : one));
  }
  if (!annotations.some((one) => one.id === data.id)) throw new Error(`${kind}: no annotation '${data.id}'.`);
  if (kind === "delete") return annotations.filter((one) => ![one.id, one.head, one.tail].includes(data.id));
  const fields = Object.fromEntries(Object.entries(data).filter(([key]) => (kind === "label" ? key === "label" : !["id", "kind", "label"].includes(key))));
  return annotations.map((one) => (one.id === data.id ? plainAnnotation({ ...one, ...fields, source: "", score: null }) : one));
}
function beginFold(start = []) {
  return { start, done: [], undone: [], comments: [], state: "open", reason: "", by: "", at: "", seconds: 0 };
}
// Take one event further; the fold before it stays as it is. Throws for a change that cannot be.
function foldEvent(fold, event) {
  const next = { ...fold, seconds: fold.seconds + (event.seconds ?? 0) }, data = event.data ?? {};
  const now = fold.done.length ? fold.done.at(-1) : fold.start;
  if (event.kind === "open" && data.annotations && fold.state === "open" && !fold.done.length && !fold.undone.length) next.start = data.annotations.map(plainAnnotation);
  else if (CHANGES.includes(event.kind)) [next.done, next.undone] = [[...fold.done, changeAnnotations(now, event)], []];
  else if (event.kind === "undo" && fold.done.length) [next.done, next.undone] = [fold.done.slice(0, -1), [...fold.undone, fold.done.at(-1)]];
  else if (event.kind === "redo" && fold.undone.length) [next.done, next.undone] = [[...fold.done, fold.undone.at(-1)], fold.undone.slice(0, -1)];
  else if (event.kind === "comment") next.comments = [...fold.comments, String(data.text ?? "")];
  else if (event.kind in ENDS) Object.assign(next, { state: ENDS[event.kind], reason: String(data.reason ?? ""), by: event.by ?? "", at: event.at ?? "" });
  return next;
}
function tellFold(fold) {
  const { start, done, undone, ...told } = fold;
  return { ...told, annotations: done.length ? done.at(-1) : start, undos: done.length, redos: undone.length };
}
function foldEvents(events, start = []) {
  return tellFold(events.reduce(foldEvent, beginFold(start)));
}
