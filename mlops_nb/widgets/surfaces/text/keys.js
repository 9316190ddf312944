// Every action on a text has a key, and the rarer ones a button as well.

function textKeys({ api, now, paper, list, spanned, tying, tagging, span }, { walk, nudge, jump, edge }, { take, shift, remove, turn }, { finish }) {
  if (!spanned) return [];
  const inList = (event) => list.box.contains(event.target);
  const arrow = (forward, extend) => () => walk(paper.backwards(now.range ? now.range.to[0] : now.cursor) && now.text ? !forward : forward, extend);
  const key = (name, words, combination, act) => ({ name, words, key: combination, act });
  return [
    key("next_word", tagging ? "next one" : "next word", "ArrowRight", arrow(true, false)),
    key("previous_word", tagging ? "the one before" : "word before", "ArrowLeft", arrow(false, false)),
    ...(tagging ? [] : [
      key("extend", "extend by a word", "Shift+ArrowRight", arrow(true, true)),
      key("shrink", "shrink by a word", "Shift+ArrowLeft", arrow(false, true)),
      key("extend_character", "one character more", "Mod+Shift+ArrowRight", () => nudge(true)),
      key("shrink_character", "one character less", "Mod+Shift+ArrowLeft", () => nudge(false)),
      key("extend_down", "extend by a line", "Shift+ArrowDown", () => jump(true, true)),
      key("extend_up", "shrink by a line", "Shift+ArrowUp", () => jump(false, true)),
      key("extend_home", "extend to the start of the line", "Shift+Home", () => edge(false, false, true)),
      key("extend_end", "extend to the end of the line", "Shift+End", () => edge(true, false, true)),
      key("end_further", "end of the selected span further", "Alt+ArrowRight", () => shift("end", true)),
      key("end_back", "end of the selected span back", "Alt+ArrowLeft", () => shift("end", false)),
      key("start_further", "start of the selected span further", "Alt+Shift+ArrowRight", () => shift("start", true)),
      key("start_back", "start of the selected span back", "Alt+Shift+ArrowLeft", () => shift("start", false)),
    ]),
    key("line_below", "line below", "ArrowDown", (event) => (inList(event) ? turn(true) : jump(true, false))),
    key("line_above", "line above", "ArrowUp", (event) => (inList(event) ? turn(false) : jump(false, false))),
    key("line_start", "start of the line", "Home", () => edge(false, false, false)),
    key("line_end", "end of the line", "End", () => edge(true, false, false)),
    key("text_start", "start of the text", "Mod+Home", () => edge(false, true, false)),
    key("text_end", "end of the text", "Mod+End", () => edge(true, true, false)),
    key("mark", tying ? "mark what is chosen; end a relation" : "mark what is chosen", tagging ? " " : ["Enter", " "], (event) => {
      if (now.tie && span(api.selected())) finish(api.selected());
      else if (now.range) take(api.label());
      else if (event.key === "Enter") return false; // then it submits
    }),
    key("next_span", "next span", "]", () => turn(true)),
    key("previous_span", "span before", "[", () => turn(false)),
    key("delete", "delete the selected one", ["Delete", "Backspace"], remove),
  ];
}

function textTools({ api, now, spanned, tying, tagging, paint }, { cut }, { begin }, finder) {
  const tools = [{ name: "search", words: "Search", key: ["f", "Mod+f"], pressed: finder.isOpen, act: () => (finder.isOpen() ? finder.close() : finder.open()) }];
  const widen = () => {
    now.whole = !now.whole;
    api.say(now.whole ? "What you choose is widened to whole words." : "What you choose is taken as it is.");
  };
  const cutAgain = () => {
    cut(now.unit === "words" ? "sentences" : "words");
    paint();
  };
  if (spanned && !tagging) tools.push({ name: "whole_words", words: "Whole words", key: "w", pressed: () => now.whole, act: widen });
  if (tagging) tools.push({ name: "sentences", words: "Sentences", key: "u", pressed: () => now.unit === "sentences", act: cutAgain });
  if (tying) // the first has a key in any case
    for (const [n, relation] of api.project.relations.entries())
      tools.push({ name: `relation_${relation.name}`, words: relation.name, key: relation.key || (n ? "" : "r"), pressed: () => now.tie?.relation === relation, act: () => begin(relation) });
  return tools;
}
