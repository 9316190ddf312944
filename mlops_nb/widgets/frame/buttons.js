// The surface's tools above the item; below it what takes a person from item to item, and whether all is saved.

const WORDS = { submitted: "submitted", skipped: "skipped", rejected: "sent back", accepted: "accepted" };

const button = (words, act, className = "") => make("button", { type: "button", className, textContent: words, onclick: act });
const keyed = (element, name) => (element.append(make("kbd", { "data-of": name, "aria-hidden": "true" })), element); // the frame writes the key in it

function makeToolbar({ now, keyOf, refresh }) {
  const element = make("div", { className: "tools", role: "toolbar", ariaLabel: "Tools" }), buttons = new Map();
  return {
    element,
    show() {
      const tools = now.surface.tools ?? [];
      arrange(element, tools.map((tool) => {
        const one = buttons.get(tool.name) ?? make("button", { type: "button", className: "tool" });
        if (!buttons.has(tool.name)) {
          buttons.set(tool.name, one);
          one.append(make("span", {}), make("kbd", { "aria-hidden": "true" }));
        }
        one.onclick = () => (tool.act(), refresh());
        write(one.firstChild, tool.words);
        write(one.lastChild, keyOf(`tool ${tool.name}`));
        if (tool.pressed) mark(one, "aria-pressed", String(Boolean(tool.pressed())));
        return one;
      }));
      element.hidden = !tools.length;
    },
  };
}

function makeFooter({ review, shelf, outbox, now, entry, say }, { undo, redo }, { submit, skip }, { go }) {
  const submitButton = keyed(button(review ? "Accept" : "Submit", () => submit(), "primary"), "submit");
  const skipButton = keyed(button(review ? "Drop" : "Skip", () => skip()), "skip"), backButton = keyed(button("Back", () => go(-1)), "back"), onButton = keyed(button("Forward", () => go(1)), "forward");
  const undoButton = keyed(button("Undo", () => undo()), "undo"), redoButton = keyed(button("Redo", () => redo()), "redo");
  const state = make("span", { className: "saving", role: "status", "aria-live": "off", "data-state": "saved" });
  let before = ""; // the state as we said it last

  function showState() {
    const found = outbox.state(), n = outbox.size();
    mark(state, "data-state", found);
    write(state, { saved: WORDS[entry()?.fold.state] ? `Saved \u00b7 ${WORDS[entry().fold.state]}` : "Saved", pending: `Saving ${n}`, resending: `Not saved yet: ${count(n, "action")}. Sending again`,
      offline: `Offline: ${count(n, "action")} kept ${shelf.keeps() ? "in this browser" : "in this page only: do not close it"}, sent when the kernel answers` }[found]);
    if (found === "offline" && before !== "offline") say("Nobody answers. What you do is kept and sent again. If the kernel was restarted, run the cell again.");
    if (found === "saved" && before === "offline") say("Saved.");
    before = found;
  }
  return {
    element: make("footer", {}, backButton, onButton, undoButton, redoButton, make("span", { className: "space" }), state, skipButton, submitButton),
    showState,
    show() {
      const one = entry(), fold = one?.fold;
      showState();
      undoButton.disabled = !fold?.done.length;
      redoButton.disabled = !fold?.undone.length;
      backButton.disabled = now.at <= 0;
      onButton.disabled = now.at >= now.trail.length - 1 && !(now.ahead && fold && fold.state !== "open");
      for (const element of [submitButton, skipButton]) element.disabled = !one;
    },
  };
}
