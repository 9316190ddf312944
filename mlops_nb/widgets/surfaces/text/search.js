// The search in a text: what it finds is framed, and each place can be marked like anything that is chosen.

const HITS = 5000; // places that it looks for

function makeFinder({ now, paper }, { showPick }, { choose }) {
  const found = make("span", { className: "quiet" });
  const search = make("input", { type: "search", placeholder: "Search in the text", ariaLabel: "Search in the text", spellcheck: false });
  const element = make("p", { className: "finder", hidden: true }, search, found);
  let at = -1; // the place that was gone to

  function look() {
    const words = search.value;
    now.hits = [];
    if (words)
      for (const one of now.text.matchAll(new RegExp(words.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu"))) {
        now.hits.push([one.index, one.index + one[0].length]);
        if (now.hits.length === HITS) break;
      }
    write(found, words ? `${now.hits.length === HITS ? "more than " : ""}${now.hits.length} found` : "");
    if (now.hits.length) paper.reveal(now.hits[0][0]);
    showPick();
  }
  function go(by) {
    if (!now.hits.length) return;
    at = (at + by + now.hits.length) % now.hits.length;
    write(found, `${at + 1} of ${now.hits.length}`);
    choose(now.hits[at]);
  }
  function close() {
    element.hidden = true;
    search.value = "";
    look();
    paper.element.focus();
  }
  search.oninput = () => {
    at = -1;
    look();
  };
  search.onkeydown = (event) => {
    if (event.key === "Enter") go(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return {
    element,
    isOpen: () => !element.hidden,
    open() {
      element.hidden = false;
      search.select();
      search.focus();
    },
    close,
    begin() { // with another text
      [now.hits, at, element.hidden, search.value] = [[], -1, true, ""];
      write(found, "");
    },
  };
}
