// Texts that somebody writes: a summary, a translation, an answer.

const PAUSE = 900; // milliseconds without a key until a written text is stored

function makeFields(api, own) {
  const parts = api.project.fields.map((field, n) => {
    const area = make("textarea", { id: `${own}-field-${n}`, dir: "auto", rows: 5, spellcheck: true, readOnly: api.readOnly });
    const count = make("span", { className: "count", id: `${own}-count-${n}` }), others = make("div", { className: "written" });
    const title = make("label", { htmlFor: area.id }, field.name, field.required ? "" : make("span", { className: "quiet", textContent: " may stay empty" }));
    const about = make("p", { className: "quiet", textContent: field.description, hidden: !field.description });
    area.setAttribute("aria-describedby", count.id);
    area.required = field.required;
    const part = { field, area, count, others, kept: "", timer: 0, begun: false };
    area.oninput = () => {
      part.begun = true;
      clearTimeout(part.timer);
      part.timer = setTimeout(() => store(part), PAUSE);
      tell(part);
    };
    area.onblur = () => store(part);
    part.element = make("section", { className: "field" }, make("p", { className: "head" }, title, count), about, area, others);
    return part;
  });
  const idOf = (part) => `text:${part.field.name}`;

  function tell(part) {
    const long = counted(part.area.value).points, wrong = long > part.field.max_length;
    write(part.count, `${long.toLocaleString("en")} of ${part.field.max_length.toLocaleString("en")}${wrong ? ": too long, not stored" : ""}`);
    part.count.classList.toggle("wrong", wrong);
    mark(part.area, "aria-invalid", String(wrong));
    part.area.style.height = "auto";
    part.area.style.height = `${Math.min(part.area.scrollHeight + 2, 420)}px`;
    return !wrong;
  }
  function store(part) {
    clearTimeout(part.timer);
    const text = part.area.value;
    if (api.readOnly || !part.begun || text === part.kept || !tell(part)) return;
    const there = api.annotations().find((one) => one.id === idOf(part));
    part.kept = text;
    part.begun = false;
    if (text) api.act("draw", { annotation: { id: idOf(part), kind: "text", label: part.field.name, text } });
    else if (there) api.act("delete", { id: there.id });
  }
  return {
    first: parts[0].area,
    element: make("div", { className: "fields" }, ...parts.map((part) => part.element)),
    flush: () => parts.forEach(store),
    show(item) {
      for (const part of parts) {
        clearTimeout(part.timer);
        part.kept = "";
        part.begin = String(item.data[part.field.column] ?? "");
        part.begun = false;
        part.area.value = "";
      }
      this.update();
      for (const part of parts)
        if (!part.kept && part.begin) { // the source's text to begin with; stored as soon as somebody leaves it or submits
          part.area.value = part.begin;
          part.begun = true;
          tell(part);
        }
    },
    update() {
      for (const part of parts) {
        const there = api.annotations().find((one) => one.kind === "text" && one.label === part.field.name);
        if (!part.begun || (there?.text ?? "") !== part.kept) { // nothing of one's own is waiting, or it was undone
          part.kept = there?.text ?? "";
          part.begun = false;
          clearTimeout(part.timer);
          if (part.area.value !== part.kept) part.area.value = part.kept;
        }
        tell(part);
        part.others.replaceChildren(...api.others().flatMap((other) => other.annotations.filter((one) => one.kind === "text" && one.label === part.field.name)
          .map((one) => make("blockquote", { dir: "auto", style: `--c: ${other.colour}` }, make("b", { textContent: other.by }), " ", make("span", { textContent: one.text })))));
      }
    },
    missing: () => {
      const empty = parts.find((part) => part.field.required && !part.area.value.trim()), long = parts.find((part) => !tell(part));
      return empty ? `Write ${empty.field.name} first.` : long ? `${long.field.name} is too long: at most ${long.field.max_length.toLocaleString("en")} characters.` : "";
    },
  };
}
