// Keys: how they are written, what each does here, and what a person has made of them.

// How a key is written; the character itself tells Shift where it is no letter.
function chordOf(event, letter = event.key) {
  const plain = letter.length === 1 ? letter.toLowerCase() : letter, tells = letter.length === 1 && !/\p{L}/u.test(letter) && letter !== " ";
  return [(event.ctrlKey || event.metaKey) && "Mod", event.altKey && "Alt", event.shiftKey && !(tells && !event.ctrlKey && !event.metaKey && !event.altKey) && "Shift", plain].filter(Boolean).join("+");
}
// As typed, then as the key stands on a Latin keyboard, then without Shift.
function chordsOf(event) {
  const latin = /^Key([A-Z])$/.exec(event.code)?.[1] ?? /^Digit(\d)$/.exec(event.code)?.[1];
  const found = [chordOf(event)];
  if (latin && (event.altKey || !/^[\x20-\x7e]$/.test(event.key))) found.push(chordOf(event, latin.toLowerCase()));
  return [...new Set([...found, ...found.map((chord) => chord.replace("Shift+", ""))])];
}
const KEYS = { " ": "Space", ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193", Escape: "Esc" };
function keyWords(chord) {
  const mac = /Mac|iPhone|iPad/.test(navigator.platform), parts = chord === "+" ? ["+"] : chord.replace(/\+\+$/, "+Plus").split("+");
  return parts.map((part) => ({ Mod: mac ? "\u2318" : "Ctrl", ...KEYS })[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");
}

// Every action of the frame that has a key.
function frameKeys(review, { undo, redo }, { go }, { submit, skip }, { header, remarks, classes, people }, openSheet) {
  return [
    { name: "submit", words: review ? "Accept" : "Submit", keys: ["Enter", "Mod+Enter"], act: () => submit() },
    { name: "skip", words: review ? "Drop: nobody can answer it" : "Skip", keys: ["s", "Alt+s"], act: () => skip() },
    { name: "back", words: "Back to the item before", keys: ["b", "Alt+b"], act: () => void go(-1) },
    { name: "forward", words: "Forward again", keys: ["n", "Alt+n"], act: () => void go(1) },
    { name: "undo", words: "Undo", keys: ["Mod+z"], act: () => undo() },
    { name: "redo", words: "Redo", keys: ["Mod+Shift+z", "Mod+y"], act: () => redo() },
    { name: "comment", words: "Write a comment", keys: ["c", "Alt+c"], act: () => remarks.begin() },
    { name: "search", words: "Find a class", keys: ["/", "Mod+k"], act: () => classes.find() },
    { name: "instructions", words: "Instructions", keys: ["i", "Alt+i"], act: () => header.turn() },
    { name: "keys", words: "All keys", keys: ["?"], act: () => openSheet() },
    ...(review ? [1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => ({ name: `adopt ${n}`, words: `Adopt answer ${n}`, keys: [`Alt+${n}`], act: () => people.adopt(n - 1) })) : []),
  ];
}

function makeKeys({ project, taste, now, focus, select }, framed, { choose }, toolbar) {
  const listed = (keys) => (Array.isArray(keys) ? keys : keys ? [keys] : []);
  let reach = new Map(), reachAt = ""; // action -> the keys that come to it first; of which bindings that is

  function bindings() {
    const remapped = taste.get(project.task) ?? {};
    const found = [
      ...project.classes.map((one) => ({ id: `class ${one.name}`, group: "Classes", words: one.name, keys: listed(one.key), act: () => choose(one.name) })),
      ...(now.surface?.keys ?? []).map((one) => ({ id: `key ${one.name}`, group: one.group ?? "Drawing", words: one.words, keys: listed(one.key), act: one.act })),
      ...(now.surface?.tools ?? []).map((one) => ({ id: `tool ${one.name}`, group: "Tools", words: one.words, keys: listed(one.key), act: one.act })),
      ...framed.map((one) => ({ id: one.name, group: "Items", words: one.words, keys: one.keys, act: one.act })),
    ];
    for (const one of found) if (remapped[one.id]) [one.keys, one.own] = [[remapped[one.id]], true];
    return [...found.filter((one) => one.own), ...found.filter((one) => !one.own)];
  }
  function keysOf(id) { // those that come to this action first
    const all = bindings(), told = JSON.stringify(all.map((one) => [one.id, one.keys]));
    if (told !== reachAt) {
      [reach, reachAt] = [new Map(), told];
      const taken = new Map();
      for (const one of all) reach.set(one.id, one.keys.filter((key) => (taken.has(key) ? key === "Enter" || key === "Escape" : taken.set(key, one.id))));
    }
    return reach.get(id) ?? [];
  }
  function press(event) {
    if (event.defaultPrevented || event.isComposing) return;
    const field = event.target.closest?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable=true]");
    if (event.key === "Escape") {
      if (field && field !== event.target.closest("[data-keys]")) focus();
      else if (!now.surface?.cancel?.() && now.selected) select("");
      event.stopPropagation();
      return;
    }
    if (field && !field.hasAttribute("data-keys") && !event.ctrlKey && !event.metaKey && !event.altKey) return;
    if (field && (event.ctrlKey || event.metaKey) && ["z", "y", "a", "c", "v", "x"].includes(event.key.toLowerCase())) return; // the field's own
    if (["Enter", " "].includes(event.key) && event.target.closest?.("button, summary, a, [role=radio], [role=option], input") && !event.ctrlKey && !event.metaKey) return;
    const all = bindings();
    for (const chord of chordsOf(event))
      for (const one of all)
        if (one.keys.includes(chord) && one.act(event) !== false) {
          event.preventDefault();
          event.stopPropagation();
          if (one.id.startsWith("tool ") || one.id.startsWith("key ")) toolbar.show();
          return;
        }
  }
  return { bindings, keysOf, press };
}
