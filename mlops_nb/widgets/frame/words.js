// Numbers, times and instructions in words.

const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`;
}

// Instructions in Markdown, as far as instructions go: headings, lists, paragraphs, bold, code.
function makeProse(text) {
  const spans = (line) => line.split(/(\*\*[^*]+\*\*|`[^`]+`)/).map((part) =>
    part.startsWith("**") && part.length > 4 ? make("b", { textContent: part.slice(2, -2) }) : part.startsWith("`") && part.length > 2 ? make("code", { textContent: part.slice(1, -1) }) : part);
  const blocks = [];
  for (const block of text.trim().split(/\n\s*\n/)) {
    let lines = [];
    const close = () => lines.length && blocks.push(make("p", {}, ...spans(lines.splice(0).join(" "))));
    for (const line of block.split("\n")) {
      const heading = /^#+\s+(.*)/.exec(line), point = /^\s*(?:[-*]|\d+\.)\s+(.*)/.exec(line);
      if (!heading && !point) {
        if (line.trim()) lines.push(line.trim());
        continue;
      }
      close();
      if (heading) blocks.push(make("h4", {}, ...spans(heading[1])));
      else if (blocks.at(-1)?.tagName === "UL") blocks.at(-1).append(make("li", {}, ...spans(point[1])));
      else blocks.push(make("ul", {}, make("li", {}, ...spans(point[1]))));
    }
    close();
  }
  return blocks;
}
