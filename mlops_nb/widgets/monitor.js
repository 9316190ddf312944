// The live view of a monitor. Python reads the history and sets `shown`; this draws it, keeps what a person has opened or typed
// while it changes, and sends what a button asks for.

const FEW = 8; // lines of a signal that are shown before somebody asks for all of them
const SMALL = { width: 200, height: 56, edge: 4 }, LARGE = { width: 640, height: 170, edge: 8 }, PAIR = { width: 640, height: 130 };
const VERBS = {
  acknowledge: { words: "Acknowledge", reason: "what you know of it" },
  snooze: { words: "Snooze", reason: "why later" },
  resolve: { words: "Resolve", reason: "what was done" },
  approve: { words: "Approve", reason: "for the ledger" },
  refuse: { words: "Refuse", reason: "for the ledger; required" },
};
const HOURS = [[1, "1 hour"], [8, "8 hours"], [24, "1 day"], [72, "3 days"], [168, "1 week"]];

let cards = 0;

function render({ model, el }) {
  const own = `mlops-monitor-${++cards}`;
  const shown = () => model.get("shown");
  const find = (key) => shown().series.find((one) => one.key === key);
  const opened = new Set(); // signals of which all lines are shown
  let place = null; // end of the window that is looked at; null: the newest
  let filter = "";
  let told = ""; // what is drawn of distributions, as `key|end`
  let drawn = null; // the last distribution

  const badge = () => makeBadge((name) => ({ path: shown().icons[shown().marks[name] ?? name] ?? shown().icons[""], words: shown().words[name] ?? name }));

  // --- the frame, made once ---

  const headState = badge(), headCount = make("span"), headTime = make("span", { className: "time" });
  const header = make("header", {}, make("strong", { textContent: shown().monitor }), make("span", { textContent: shown().environment }),
    headState(""), headCount, headTime);
  const strip = make("div", { className: "strip", role: "img" });
  const untold = make("ul", { className: "untold" });
  const alerts = make("ul", { className: "alerts" }), noAlerts = make("p", { className: "none", textContent: "No alerts." });
  const moreAlerts = make("p", { className: "quiet" });
  const waiting = make("ul", { className: "actions" }), history = make("ul", { className: "history" });
  const past = make("details", {}, make("summary", { textContent: "Actions before" }), history);
  const name = make("input", { type: "text", placeholder: shown().user, id: `${own}-name`, autocomplete: "off" });
  const persona = make("select", { id: `${own}-persona` });
  const who = make("p", { className: "who" }, make("label", { htmlFor: `${own}-name`, textContent: "Answer as" }), name,
    make("label", { htmlFor: `${own}-persona`, textContent: "in the role" }), persona);
  const search = make("input", { type: "search", id: `${own}-search`, placeholder: "feature or metric", oninput: () => ((filter = search.value.toLowerCase()), update()) });
  const signals = make("div", { className: "signals" }), hidden = make("p", { className: "quiet" });
  const about = make("section", { className: "about", hidden: true });
  const spoken = make("p", { className: "spoken", role: "status" });
  const titled = (text, ...parts) => make("section", { ariaLabel: text }, make("h4", { textContent: text }), ...parts);
  const waitingPart = titled("Waiting for a person", waiting), whoPart = who;
  const root = make("section", { className: "mlops-monitor", ariaLabel: `monitor ${shown().monitor}`, "data-lm-suppress-shortcuts": "true" },
    header, strip, untold, titled("Alerts", noAlerts, alerts, moreAlerts), waitingPart, past, whoPart,
    make("section", { ariaLabel: "Signals" }, make("p", { className: "find" }, make("label", { htmlFor: `${own}-search`, textContent: "Find" }), search), signals, hidden), spoken);

  // --- alerts and actions: a row each, with the form that somebody has opened ---

  const rows = new Map();
  function row(kind, id, verbs) {
    const key = `${kind} ${id}`;
    if (rows.has(key)) return rows.get(key);
    const state = badge(), title = make("b"), where = make("span", { className: "quiet" }), answer = make("span", { className: "quiet" });
    const lines = make("ul"), buttons = make("span", { className: "buttons" }), form = make("form", { className: "answer", hidden: true });
    const problem = make("p", { className: "problem", role: "alert", hidden: true });
    for (const verb of verbs) {
      const button = make("button", { type: "button", textContent: VERBS[verb].words, onclick: () => open(verb) });
      button.dataset.verb = verb;
      button.setAttribute("aria-expanded", "false");
      buttons.append(button);
    }
    const element = make("li", { className: kind }, make("div", { className: "head" }, state(""), title, where, answer, buttons), lines, form, problem);
    const one = { element, state, title, where, answer, lines, buttons, form, problem, listed: "", verb: "" };

    function open(verb) {
      if (one.verb === verb) return shut(verb);
      one.verb = verb;
      problem.hidden = true;
      const reason = make("input", { type: "text", placeholder: VERBS[verb].reason, id: `${own}-${id}-reason`, autocomplete: "off", maxLength: 500 });
      const hours = make("select", { id: `${own}-${id}-hours` }, ...HOURS.map(([value, text]) => make("option", { value, textContent: text, selected: value === 24 })));
      const send = make("button", { type: "submit", textContent: VERBS[verb].words, className: "primary" });
      form.replaceChildren(...(verb === "snooze" ? [make("label", { htmlFor: hours.id, textContent: "for" }), hours] : []),
        make("label", { htmlFor: reason.id, textContent: "Reason" }), reason, send,
        make("button", { type: "button", textContent: "Cancel", onclick: () => shut(verb) }));
      form.setAttribute("aria-label", `${VERBS[verb].words} ${title.textContent}`);
      form.onsubmit = (event) => {
        event.preventDefault();
        send.disabled = true;
        problem.hidden = true;
        model.send({ act: verb, id, reason: reason.value, hours: verb === "snooze" ? Number(hours.value) : null, name: name.value, persona: persona.value });
      };
      form.onkeydown = (event) => {
        if (event.key === "Escape") shut(verb);
        if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
        event.preventDefault(); // JupyterLab keeps an Enter in a cell's output from sending a form
        if (!send.disabled) form.requestSubmit(send);
      };
      form.hidden = false;
      expanded();
      form.querySelector("select, input").focus();
    }
    function shut(verb) {
      one.verb = "";
      form.hidden = true;
      form.replaceChildren();
      expanded();
      buttons.querySelector(`[data-verb=${verb}]`)?.focus();
    }
    function expanded() {
      for (const button of buttons.children) mark(button, "aria-expanded", String(button.dataset.verb === one.verb));
    }
    one.shut = shut;
    rows.set(key, one);
    return one;
  }

  function fill(one, state, words, title, where, answer, lines) {
    one.state(state, words);
    write(one.title, title);
    write(one.where, where);
    write(one.answer, answer);
    for (const button of one.buttons.children) mark(button, "aria-label", `${button.textContent} ${title}`);
    if (one.listed === JSON.stringify(lines)) return;
    one.listed = JSON.stringify(lines);
    one.lines.replaceChildren(...lines.map((text) => make("li", { textContent: text })));
  }

  function showAlerts() {
    const { alerts: all, actions, done, more } = shown();
    const listed = all.map((alert) => {
      const one = row("alert", alert.id, ["acknowledge", "snooze", "resolve"]);
      const lines = [...alert.lines, ...(alert.more ? [`and ${alert.more} more`] : [])];
      fill(one, alert.state, undefined, alert.title, alert.deployment, alert.answer, lines);
      one.buttons.hidden = alert.state === "resolved";
      return one.element;
    });
    arrange(alerts, listed);
    noAlerts.hidden = listed.length > 0;
    moreAlerts.hidden = !more;
    write(moreAlerts, `and ${more} more, which \`mlops-nb monitor alerts\` lists`);
    arrange(waiting, actions.map((action) => {
      const one = row("action", action.id, ["approve", "refuse"]);
      fill(one, "waiting", undefined, `${action.kind} ${action.subject}`, `since ${action.at} UTC`, "", action.reason ? [action.reason] : []);
      return one.element;
    }));
    waitingPart.hidden = !actions.length;
    past.hidden = !done.length;
    history.replaceChildren(...done.map((action) => make("li", { textContent: `${action.at} ${action.kind} ${action.subject}: ${action.state}. ${action.reason}` })));
    who.hidden = !listed.length && !actions.length;
  }

  // --- signals over time: small multiples ---

  function picture(one, size, chosen = null) {
    const across = (x) => (size.edge + x * (size.width - 2 * size.edge)).toFixed(1), down = (y) => (size.edge + (1 - y) * (size.height - 2 * size.edge)).toFixed(1);
    let path = "", pen = "M";
    const marks = [];
    for (const [index, dot] of one.dots.entries()) {
      if (dot.y === null) pen = "M";
      else [path, pen] = [`${path}${pen}${across(dot.x)} ${down(dot.y)}`, "L"];
      if (dot.end === chosen) marks.unshift(draw("path", { class: "here", d: `M${across(dot.x)} 0V${size.height}` }));
      if (dot.breached || index === one.dots.length - 1 || size === LARGE) {
        const circle = draw("circle", { class: dot.breached ? "bad" : "", cx: across(dot.x), cy: dot.y === null ? size.height - size.edge : down(dot.y), r: size === LARGE ? 3.5 : 2.6 });
        circle.append(draw("title", {}, dot.text));
        marks.push(circle);
      }
    }
    const limit = one.limit === null ? [] : [draw("path", { class: "limit", d: `M0 ${down(one.limit)}H${size.width}` })];
    return draw("svg", { viewBox: `0 0 ${size.width} ${size.height}`, "aria-hidden": "true" }, ...limit, draw("path", { class: "line", d: path }), ...marks);
  }

  const multiples = new Map(), groups = new Map();
  function multiple(one) {
    let made = multiples.get(one.key);
    if (!made) {
      const feature = make("b"), metric = make("span"), value = make("span", { className: "value" }), field = make("span", { className: "field" });
      const button = make("button", { type: "button", className: "multiple", onclick: () => select(one.key) }, feature, value, metric, field);
      made = { button, feature, metric, value, field, listed: "" };
      multiples.set(one.key, made);
    }
    write(made.feature, [one.feature || (one.segment ? "" : "all"), one.segment && `where ${one.segment}`].filter(Boolean).join(" "));
    write(made.metric, one.metric);
    write(made.value, one.value);
    mark(made.button, "aria-label", one.label);
    mark(made.button, "aria-pressed", String(model.get("selected") === one.key));
    made.button.classList.toggle("bad", one.breached);
    const listed = JSON.stringify([one.dots, one.limit]);
    if (made.listed !== listed) {
      made.listed = listed;
      made.field.replaceChildren(picture(one, SMALL));
    }
    return made.button;
  }

  function showSignals() {
    const names = [...new Set(shown().series.map((one) => one.signal))];
    arrange(signals, names.map((signal) => {
      const all = shown().series.filter((one) => one.signal === signal);
      const fit = all.filter((one) => `${one.feature} ${one.metric} ${one.segment}`.toLowerCase().includes(filter));
      if (!groups.has(signal)) {
        const grid = make("div", { className: "grid" }), kind = make("span", { className: "quiet" });
        const more = make("button", { type: "button", className: "more", onclick: () => (opened.has(signal) ? opened.delete(signal) : opened.add(signal), update()) });
        groups.set(signal, { part: make("section", { ariaLabel: `signal ${signal}` }, make("h4", {}, signal, " ", kind), grid, more), grid, kind, more });
      }
      const { part, grid, kind, more } = groups.get(signal);
      write(kind, all[0].type);
      arrange(grid, fit.slice(0, opened.has(signal) ? Infinity : FEW).map(multiple));
      more.hidden = fit.length <= FEW;
      mark(more, "aria-expanded", String(opened.has(signal)));
      write(more, opened.has(signal) ? "Show fewer" : `Show all ${fit.length}`);
      part.hidden = !fit.length;
      return part;
    }));
    hidden.hidden = !shown().hidden;
    write(hidden, `and ${shown().hidden} more, which \`mlops-nb monitor history\` lists`);
  }

  function select(key) {
    model.set("selected", model.get("selected") === key ? "" : key);
    model.save_changes();
    place = null;
    update();
  }

  // --- one number: its course, and the distribution in one of its windows ---

  let detail = null;
  function frame(one) {
    if (detail?.key === one.key) return detail;
    const title = make("h4"), facts = make("p", { className: "facts" }), chart = make("div", { className: "chart", role: "img" });
    const scale = make("p", { className: "scale quiet" }), slider = make("input", { type: "range", min: 0, step: 1, id: `${own}-window` });
    const moment = make("span", { className: "moment" }), shares = make("div", { className: "shares" }), examples = make("ul", { className: "examples" });
    slider.oninput = () => {
      place = find(model.get("selected")).dots[slider.value].end;
      update();
    };
    slider.onkeydown = (event) => { // JupyterLab takes the arrows' own effect away
      const now = Number(slider.value), last = Number(slider.max);
      const to = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, Home: 0, End: last }[event.key];
      if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      slider.value = Math.min(last, Math.max(0, to));
      slider.oninput();
    };
    const close = make("button", { type: "button", textContent: "Close", onclick: () => {
      const back = multiples.get(one.key)?.button;
      select(one.key);
      back?.focus();
    } });
    about.replaceChildren(make("div", { className: "head" }, title, close), facts, chart, scale,
      make("p", { className: "step" }, make("label", { htmlFor: slider.id, textContent: "Window" }), slider, moment), shares, examples);
    told = "";
    return (detail = { key: one.key, title, facts, chart, scale, slider, moment, shares, examples, listed: "" });
  }

  function showDetail() {
    const one = find(model.get("selected"));
    about.hidden = !one;
    if (!one) return (detail = null);
    const beside = groups.get(one.signal).part;
    if (about.parentElement !== beside) beside.append(about);
    const view = frame(one), last = one.dots.length - 1;
    let index = one.dots.findIndex((dot) => dot.end === place);
    if (index < 0) index = last;
    const dot = one.dots[index];
    mark(about, "aria-label", `${one.feature || "all"} ${one.metric}`);
    write(view.title, [one.feature, one.metric, one.segment && `where ${one.segment}`].filter(Boolean).join(" "));
    write(view.facts, `${one.signal} (${one.type}) · ${one.threshold ? `threshold ${one.threshold}` : "no threshold: never alarms"} · needed attention in ${one.ever} of ${one.dots.length} windows`);
    write(view.scale, `${one.low} to ${one.high}`);
    mark(view.chart, "aria-label", one.label);
    const listed = JSON.stringify([one.dots, one.limit, dot.end]);
    if (view.listed !== listed) {
      view.listed = listed;
      view.chart.replaceChildren(picture(one, LARGE, dot.end));
    }
    view.slider.max = last;
    if (Number(view.slider.value) !== index) view.slider.value = index;
    mark(view.slider, "aria-valuetext", dot.text);
    write(view.moment, dot.text);
    view.examples.hidden = !dot.examples.length;
    view.examples.replaceChildren(...dot.examples.map((text) => make("li", { textContent: text })));
    const wanted = `${one.key}|${dot.end}`;
    if (told !== wanted) {
      told = wanted;
      if (!drawn || drawn.key !== one.key || drawn.end !== dot.end) model.send({ show: one.key, end: dot.end });
      showShares();
    }
  }

  function showShares() {
    if (!detail) return;
    if (!drawn || `${drawn.key}|${drawn.end}` !== told) return detail.shares.classList.add("old");
    detail.shares.classList.remove("old");
    if (drawn.problem) return detail.shares.replaceChildren(make("p", { className: "quiet", textContent: drawn.problem }));
    const highest = Math.max(...drawn.reference, ...drawn.production, 1e-9), step = PAIR.width / drawn.bins.length, wide = Math.max(1, step * 0.4);
    const bars = drawn.bins.flatMap((name, bin) => ["reference", "production"].map((side, which) => {
      const tall = (drawn[side][bin] / highest) * (PAIR.height - 4);
      const bar = draw("rect", { class: side, x: (bin * step + step * 0.08 + which * wide).toFixed(1), y: (PAIR.height - tall).toFixed(1), width: wide.toFixed(1), height: tall.toFixed(1) });
      bar.append(draw("title", {}, `${name}: ${side} ${(100 * drawn[side][bin]).toFixed(1)} %`));
      return bar;
    }));
    const legend = make("p", { className: "legend" }, ...["reference", "production"].map((side) => make("span", {}, make("i", { className: side }), side)));
    const head = make("tr", {}, ...["", "reference", "production"].map((text) => make("th", { scope: "col", textContent: text })));
    const body = drawn.bins.map((bin, i) => make("tr", {}, make("th", { scope: "row", textContent: bin }),
      ...["reference", "production"].map((side) => make("td", { textContent: `${(100 * drawn[side][i]).toFixed(1)} %` }))));
    const picture = draw("svg", { viewBox: `0 0 ${PAIR.width} ${PAIR.height}`, role: "img", "aria-label": "distribution of the reference beside production; the table below has the numbers" }, ...bars);
    const table = make("details", {}, make("summary", { textContent: "As a table" }), make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
    table.open = detail.shares.querySelector("details")?.open ?? false;
    detail.shares.replaceChildren(legend, picture, make("p", { className: "scale quiet" }, make("span", { textContent: drawn.bins[0] }), make("span", { textContent: drawn.bins.at(-1) })), table);
  }

  // --- keeping up ---

  const before = new Map();
  function announce() {
    const news = shown().alerts.filter((alert) => before.size && before.get(alert.id) === undefined);
    if (news.length) write(spoken, `${news.length === 1 ? "An alert" : `${news.length} alerts`}: ${news[0].title}, ${news[0].lines[0] ?? ""}`);
    before.set("", "seen");
    for (const alert of shown().alerts) before.set(alert.id, alert.state);
  }

  function update() {
    const { state, windows, personas, clock } = shown();
    headState(state);
    write(headCount, `${windows.length} window${windows.length === 1 ? "" : "s"}`);
    write(headTime, windows.length ? `last ${windows.at(-1).end.slice(0, 16).replace("T", " ")} UTC` : "");
    mark(headTime, "title", `read ${new Date(clock * 1000).toLocaleTimeString()}`);
    const states = windows.map((one) => one.state), words = [...new Set(states)].map((one) => `${states.filter((other) => other === one).length} ${shown().words[one] ?? one}`);
    mark(strip, "aria-label", `${windows.length} windows: ${words.join(", ")}`);
    strip.replaceChildren(...windows.map((one) => make("i", { "data-state": one.state, title: one.text })));
    untold.replaceChildren(...shown().untold.map((text) => make("li", { textContent: text })));
    untold.hidden = !shown().untold.length;
    if (persona.options.length !== personas.length)
      persona.replaceChildren(...personas.map((one) => make("option", { value: one, textContent: one, selected: one === shown().persona })));
    showAlerts();
    showSignals();
    showDetail();
  }

  function changed() {
    announce();
    update();
  }
  function onMessage(message) {
    if (message.distribution) {
      drawn = message.distribution;
      showShares();
    }
    if (!message.answer) return;
    const { act, id, text, wrong } = message.answer;
    const one = rows.get(`alert ${id}`) ?? rows.get(`action ${id}`);
    if (!wrong) write(spoken, text);
    if (!one) return;
    if (one.verb === act && !wrong) one.shut(act);
    for (const button of one.form.querySelectorAll("button")) button.disabled = false;
    one.problem.hidden = !wrong;
    write(one.problem, wrong ? text : "");
  }

  announce();
  update();
  el.append(root);
  model.on("change:shown", changed);
  model.on("change:selected", update);
  model.on("msg:custom", onMessage);
  return () => {
    model.off("change:shown", changed);
    model.off("change:selected", update);
    model.off("msg:custom", onMessage);
  };
}

export default { render };
