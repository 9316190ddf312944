// What else is known of the item, and what people say about it.

const APART = { image: ["image", "width", "height"], text: ["text"], compare: ["prompt", "candidates"], row: ["row"] }; // what the surface shows

function makeRemarks({ own, project, entry, told, focus, refresh }, { note }) {
  const facts = make("dl", { className: "facts" }), said = make("ul", { className: "said" });
  const comment = make("input", { type: "text", id: `${own}-comment`, placeholder: "Comment", ariaLabel: "Comment on this item", autocomplete: "off", maxLength: 2000 });

  function sayComment() {
    const text = comment.value.trim();
    comment.value = "";
    if (text && entry()) note("comment", { text });
  }
  comment.onkeydown = (event) => {
    if (event.key !== "Enter" || event.isComposing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    sayComment();
    refresh();
    focus();
  };
  function show() {
    const shown = told() ? Object.entries(told().data).filter(([key]) => !APART[project.medium].includes(key)) : [];
    facts.hidden = !shown.length;
    facts.replaceChildren(...shown.flatMap(([key, value]) => [make("dt", { textContent: key }), make("dd", { textContent: typeof value === "string" ? value : JSON.stringify(value) })]));
    const comments = entry()?.fold.comments ?? [];
    said.hidden = !comments.length;
    said.replaceChildren(...comments.map((text) => make("li", { textContent: text })));
  }
  return { facts, comments: make("section", { className: "comments", ariaLabel: "Comments" }, said, comment), sayComment, show, begin: () => comment.focus() };
}
