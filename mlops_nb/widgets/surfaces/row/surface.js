// A row of a table: its columns and their values. A long value is folded until somebody opens it.

const LONG = 280; // characters of a value that are shown folded
const MANY = 24; // columns from which on they can be searched

function makeRowSurface(api) {
  const body = make("tbody"), none = make("p", { className: "quiet", textContent: "No column is called so.", hidden: true });
  const search = make("input", { type: "search", placeholder: "Find a column or a value", ariaLabel: "Find a column or a value", oninput: () => filter() });
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col", textContent: "Column" }), make("th", { scope: "col", textContent: "Value" })));
  const table = make("div", { className: "paper", tabIndex: 0, role: "region", ariaLabel: "Row", "data-focus": "" }, make("table", {}, head, body), none);
  const element = make("div", { className: "label-row" }, search, table);
  let opened = new Set(); // columns that somebody has unfolded: they stay so from row to row

  const empty = (value) => value === null || value === undefined || value === "";
  const worded = (value) => (typeof value === "object" ? foldable(value) : String(value));
  const foldable = (value) => (JSON.stringify(value).length > 100 ? JSON.stringify(value, null, 2) : JSON.stringify(value));

  function cell(column, value) {
    if (empty(value)) return make("td", { className: "quiet", textContent: value === "" ? "empty text" : "no value" });
    const words = worded(value), points = [...words];
    if (points.length <= LONG) return make("td", { dir: "auto", className: typeof value === "number" ? "number" : "", textContent: words });
    const text = make("span", { dir: "auto" }), button = make("button", { type: "button", className: "fold", onclick: () => (opened.has(column) ? opened.delete(column) : opened.add(column), fold()) });
    const fold = () => {
      const open = opened.has(column);
      write(text, open ? words : `${points.slice(0, LONG).join("").trimEnd()}\u2026`);
      write(button, open ? "Show less" : `Show all ${points.length.toLocaleString("en")} characters`);
      mark(button, "aria-expanded", String(open));
      mark(button, "aria-label", `${button.textContent} of ${column}`);
    };
    fold();
    return make("td", {}, text, button);
  }
  function filter() {
    const words = search.value.trim().toLowerCase();
    let seen = 0;
    for (const row of body.children) seen += !(row.hidden = Boolean(words) && !row.dataset.words.includes(words));
    none.hidden = seen > 0;
  }

  return {
    element,
    tools: [],
    keys: [],
    show({ data }) {
      const columns = Object.entries(data.row ?? {});
      body.replaceChildren(...columns.map(([column, value]) => {
        const row = make("tr", {}, make("th", { scope: "row", className: column.length < 40 ? "short" : "", textContent: column }), cell(column, value));
        row.dataset.words = `${column} ${empty(value) ? "" : worded(value)}`.toLowerCase();
        return row;
      }));
      search.hidden = columns.length < MANY;
      filter();
      table.scrollTop = 0;
    },
    update() {},
    cancel: () => false,
    resized() {},
    destroy() {},
  };
}

export default { render: labelCard(makeRowSurface) };
