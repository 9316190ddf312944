// The live view of a run. Python follows the run's folder and sets `shown` and `tails`; this draws them, lets durations
// tick in between, and asks for nothing but what a click asks for.

const STALE = 6; // seconds without a sign of life from the kernel, after which nothing ticks any more
const REDRAWN = 30_000; // ms that a notebook may take to draw this output again
const TRIALS = 16; // marks under a node; the details list all of them

export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60), two = (number) => String(number).padStart(2, "0");
  if (minutes < 1) return `${whole} s`;
  return minutes < 60 ? `${minutes} min ${two(whole % 60)} s` : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

const ticking = (seconds) => (seconds < 9.95 ? `${Math.floor(Math.max(0, seconds))} s` : duration(seconds));
const plain = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value ?? ""));
const ENDED = ["done", "failed", "waiting", "closed", "stopped"];

const focused = new Map(); // folder of a run -> the node that has the focus, or had until a moment ago

function render({ model, el }) {
  const graph = model.get("graph");
  let heard = -Infinity; // when the kernel last said anything, by this page's clock
  let ahead = 0; // how far this page's clock is ahead of the kernel's
  let places = null; // promise: where JupyterLab finds the run's files, if it can
  const now = () => Date.now() / 1000 - ahead;
  const live = () => Date.now() / 1000 - heard < STALE;
  const shown = () => model.get("shown");
  const every = () => shown().steps.flatMap((step) => [step, ...step.trials]);
  const find = (name) => every().find((step) => step.name === name);
  const looked = () => find(model.get("selected")) || find(shown().followed) || shown().steps[0];

  const icon = () => makeBadge((name) => ({ path: graph.icons[name] ?? graph.icons[""], words: graph.words[name] ?? name }));

  // How a step stands: in short on its node, in full for its details and for who listens.
  function time(step) {
    if (step.state === "running") return step.since && live() ? ticking(now() - step.since) : "";
    return ENDED.includes(step.state) && step.seconds ? duration(step.seconds) : "";
  }
  function brief(step) {
    const words = { waiting: "waits", closed: "closed" }[step.state] || graph.words[step.state] || step.state;
    const cells = step.state === "running" && step.cells ? `${step.cell}/${step.cells}` : "";
    return [step.state === "running" && time(step) ? "" : words, time(step), cells].filter(Boolean).join(" · ");
  }
  function full(step, spoken = false) {
    const parts = [graph.words[step.state] ?? step.state];
    if (time(step) && !(spoken && step.state === "running"))
      parts[0] += step.state === "running" ? ` for ${time(step)}` : ` after ${time(step)}`;
    if (step.attempt > 1) parts.push(`attempt ${step.attempt}`);
    if (step.cells && step.state !== "done") parts.push(`${step.cell} of ${step.cells} cells`);
    if (step.trials?.length) {
      parts.push(`${step.trials.length} trials`);
      for (const state of ["failed", "running"]) {
        const count = step.trials.filter((trial) => trial.state === state).length;
        if (count) parts.push(`${count} ${state}`);
      }
    }
    return parts.join(", ");
  }

  function select(name) {
    model.set("selected", model.get("selected") === name ? "" : name);
    model.save_changes();
    update();
  }

  // --- the frame, made once ---

  const headState = icon(), headTime = make("span", { className: "time" }), headCount = make("span");
  const header = make("header", {}, make("strong", { textContent: shown().scenario }),
    make("span", { textContent: shown().environment }), headState("", ""), headCount, headTime,
    make("code", { textContent: shown().id, title: shown().folder }));
  const size = `width:${graph.width}px;height:${graph.height}px`;
  const lines = graph.edges.map((edge) => [edge, draw("path", { d: edge.path })]);
  const list = make("ol");
  const field = make("div", { className: "field" },
    make("div", { className: "graph", style: size }, draw("svg", { "aria-hidden": "true", style: size }, ...lines.map(([, line]) => line)), list));
  const panel = make("section", { className: "about" });
  const spoken = make("p", { className: "spoken", role: "status" });
  const root = make("section", { className: "mlops-run", "aria-label": `run ${shown().id}`, "data-lm-suppress-shortcuts": "true" },
    header, field, panel, spoken);

  const nodes = new Map(Object.entries(graph.nodes).map(([name, [x, y]]) => {
    const state = icon(), bar = make("span", { className: "bar" }), trials = make("span", { className: "trials", "aria-hidden": "true" });
    const button = make("button", { type: "button", title: name, onclick: () => select(name) },
      make("b", { textContent: name }), state("", ""), bar);
    const place = make("li", { className: "node", style: `left:${x}px;top:${y}px` }, button, trials);
    list.append(place);
    return [name, { place, button, state, bar, trials }];
  }));

  // --- the details of one step, made anew when another step is looked at ---

  let about = null;
  function details(step) {
    if (about?.name === step.name) return about;
    const parent = step.name.includes("/") ? step.name.slice(0, step.name.lastIndexOf("/")) : "";
    const state = icon(), facts = make("p", { className: "facts" }), links = make("p", { className: "links" });
    const message = make("pre", { className: "message", tabIndex: 0, ariaLabel: `what ${step.name} said` });
    const log = make("pre", { className: "log", tabIndex: 0, ariaLabel: `log of ${step.name}` });
    const trials = make("div", { className: "table", tabIndex: 0, role: "group", ariaLabel: `trials of ${step.name}` });
    const title = make("h4", {}, step.name);
    const head = make("div", { className: "head" }, title, state("", ""), links);
    if (parent) head.prepend(make("button", { type: "button", textContent: `back to ${parent}`, onclick: () => select(parent) }));
    panel.replaceChildren(head, facts, message, trials, log);
    panel.setAttribute("aria-label", `step ${step.name}`);
    about = { name: step.name, state, facts, links, message, log, trials, linked: "", listed: "", atEnd: true };
    log.onscroll = () => (about.atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4);
    return about;
  }

  function showDetails() {
    const step = looked();
    panel.hidden = !step;
    if (!step) return;
    const view = details(step);
    view.state(step.state, full(step));
    const facts = [];
    if (step.needs.length) facts.push(`needs ${step.needs.join(", ")}`);
    if (step.from) facts.push(`nothing has changed since ${step.from}, whose result is used`);
    if (step.metric !== undefined && step.metric !== null) facts.push(`metric ${plain(step.metric)}`);
    for (const [name, value] of Object.entries(step.values || {})) facts.push(`${name} = ${plain(value)}`);
    write(view.facts, facts.join(" · "));
    write(view.message, step.message);
    write(view.log, model.get("tails")[step.name] || "");
    view.facts.hidden = !facts.length;
    view.message.hidden = !step.message;
    view.log.hidden = !view.log.textContent;
    if (view.atEnd) view.log.scrollTop = view.log.scrollHeight;
    showTrials(view, step);
    showLinks(view, step);
  }

  function showTrials(view, step) {
    view.trials.hidden = !step.trials?.length;
    const listed = JSON.stringify(step.trials || []);
    if (view.trials.hidden || view.listed === listed) return;
    view.listed = listed;
    const kept = view.trials.contains(document.activeElement) ? document.activeElement.textContent : "";
    const names = [...new Set(step.trials.flatMap((trial) => Object.keys(trial.values)))];
    const head = make("tr", {}, ...["trial", "", "metric", ...names].map((name) => make("th", { scope: "col", textContent: name })));
    const rows = step.trials.map((trial) => {
      const button = make("button", { type: "button", textContent: trial.name.split("/").pop(), onclick: () => select(trial.name) });
      button.setAttribute("aria-label", `trial ${button.textContent}: ${full(trial, true)}`);
      const cells = [button, icon()(trial.state, brief(trial)), plain(trial.metric), ...names.map((name) => plain(trial.values[name]))];
      return make("tr", {}, ...cells.map((cell) => make("td", {}, cell)));
    });
    view.trials.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
    if (kept) [...view.trials.querySelectorAll("button")].find((button) => button.textContent === kept)?.focus();
  }

  // --- files ---

  // JupyterLab opens files below its own root, hidden ones only if it was told to. Ask once.
  async function findPlaces() {
    const config = JSON.parse(document.getElementById("jupyter-config-data")?.textContent || "null");
    if (!config?.serverRoot) return null;
    const top = config.serverRoot.replace(/^~(?=$|\/)/, shown().home).replace(/\/*$/, "/");
    const below = (path) => (path.startsWith(top) ? path.slice(top.length).split("/").map(encodeURIComponent).join("/") : "");
    if (!below(shown().folder)) return null;
    const answer = await fetch(`${config.baseUrl}api/contents/${below(shown().folder)}?content=0`).catch(() => null);
    return answer?.ok ? { base: config.baseUrl, below, plain: (path) => path.slice(top.length) } : null;
  }

  async function showLinks(view, step) {
    const wanted = step.notebook + step.report;
    if (view.linked === wanted) return;
    view.linked = wanted;
    places ||= findPlaces();
    const found = await places;
    const links = [];
    if (step.notebook && found?.below(step.notebook)) {
      const link = make("a", { href: `${found.base}lab/tree/${found.below(step.notebook)}`, target: "_blank", textContent: "Notebook" });
      link.dataset.commandlinkerCommand = "docmanager:open"; // JupyterLab then opens it beside this one
      link.dataset.commandlinkerArgs = JSON.stringify({ path: found.plain(step.notebook) });
      links.push(link);
    } else if (step.notebook) {
      const copy = make("button", { type: "button", textContent: "Copy the notebook's path", title: step.notebook });
      copy.onclick = () => navigator.clipboard?.writeText(step.notebook).then(() => say("copied"), () => say(step.notebook));
      links.push(copy);
    }
    if (step.report && found?.below(step.report))
      links.push(make("a", { href: `${found.base}files/${found.below(step.report)}`, target: "_blank", textContent: "HTML" }));
    else if (step.report)
      links.push(make("button", { type: "button", textContent: "HTML", title: step.report, onclick: () => model.send({ report: step.name }) }));
    view.links.replaceChildren(...links);
  }

  // A report from the kernel is shown in a page of its own, without access to this one.
  function openReport(name, bytes) {
    const frame = make("iframe", { srcdoc: new TextDecoder().decode(bytes), title: name });
    frame.setAttribute("sandbox", "allow-scripts allow-popups");
    const style = "html,body,iframe{margin:0;border:0;width:100%;height:100%;display:block}";
    const page = `<!doctype html><meta charset="utf-8"><title>${make("i", { textContent: name }).innerHTML}</title><style>${style}</style>${frame.outerHTML}`;
    const address = URL.createObjectURL(new Blob([page], { type: "text/html" }));
    window.open(address, "_blank");
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  // --- keeping up ---

  const before = new Map();
  function say(text) {
    spoken.textContent = text;
  }
  function announce() {
    const news = shown().steps.filter((step) => before.has(step.name) && before.get(step.name) !== step.state);
    if (news.length) say(news.map((step) => `${step.name}: ${full(step, true)}`).join("; "));
    for (const step of shown().steps) before.set(step.name, step.state);
  }

  function update() {
    const { state, steps, seconds, since } = shown();
    const over = steps.filter((step) => ["done", "skipped"].includes(step.state));
    headState(state, graph.words[state] ?? state);
    write(headCount, `${over.length} of ${steps.length} steps`);
    const going = state === "running" && since && live() ? now() - since : 0;
    write(headTime, seconds + going ? (going ? ticking(seconds + going) : duration(seconds)) : "");
    const chosen = looked()?.name.split("/")[0];
    for (const step of steps) {
      const node = nodes.get(step.name);
      mark(node.place, "data-state", step.state);
      node.state(step.state, brief(step));
      mark(node.button, "aria-label", `${step.name}: ${full(step, true)}`);
      mark(node.button, "aria-pressed", String(model.get("selected").split("/")[0] === step.name));
      node.place.classList.toggle("looked", step.name === chosen);
      mark(node.bar, "style", `width:${step.cells && step.state === "running" ? (100 * step.cell) / step.cells : 0}%`);
      const marks = step.trials.slice(-TRIALS).map((trial) => trial.state);
      if (node.marks !== marks.join()) {
        node.marks = marks.join();
        node.trials.replaceChildren(...marks.map((one) => make("i", { "data-state": one })));
      }
    }
    const passed = new Set(over.map((step) => step.name));
    for (const [edge, line] of lines) line.classList.toggle("passed", passed.has(edge.from));
    showDetails();
  }

  function hear() {
    heard = Date.now() / 1000;
  }
  function changed() {
    hear();
    ahead = Date.now() / 1000 - shown().clock;
    announce();
    update();
  }
  function onMessage(message, buffers) {
    hear();
    if (message.beat) ahead = heard - message.beat;
    if (message.report) openReport(message.report, buffers[0]);
  }

  // When the run is over the notebook draws this output again; whoever stood on a node, stands there still.
  const stood = focused.get(shown().folder);
  const back = stood && setInterval(() => {
    if (Date.now() > stood.until) clearInterval(back);
    else if (root.isConnected && document.activeElement === document.body) nodes.get(stood.name)?.button.focus({ preventScroll: true });
  }, 50);
  list.addEventListener("focusin", ({ target }) => {
    clearInterval(back);
    focused.set(shown().folder, { name: target.title, until: Infinity });
  });
  list.addEventListener("focusout", () => (focused.get(shown().folder).until = Date.now() + 1_000)); // or the output was taken away: see the end

  announce();
  update();
  el.append(root);
  model.on("change:shown", changed);
  model.on("change:tails", showDetails);
  model.on("change:selected", update);
  model.on("msg:custom", onMessage);
  model.send({ hello: true });
  const clock = setInterval(update, 500);
  return () => {
    clearInterval(clock);
    clearInterval(back);
    const left = focused.get(shown().folder);
    if (left?.until > Date.now()) left.until = Date.now() + REDRAWN;
    model.off("change:shown", changed);
    model.off("change:tails", showDetails);
    model.off("change:selected", update);
    model.off("msg:custom", onMessage);
  };
}

export default { render };
