// What is on its way to Python: it goes out at once, again when nobody answers, and it outlives this page.

const WAIT = 2_000, LONGEST = 30_000; // ms until what was not acknowledged is sent again, and at most
const LATE = 8_000; // ms after which we say that nobody answers

// What the browser keeps for us; where it keeps nothing (a sandboxed frame), this page's memory does.
function makeShelf(prefix) {
  const memory = new Map();
  let keeps = true;
  const attempt = (work, other) => {
    try {
      return work();
    } catch {
      keeps = false;
      return other();
    }
  };
  return {
    keeps: () => keeps,
    put: (key, value) => attempt(() => localStorage.setItem(prefix + key, JSON.stringify(value)), () => memory.set(key, value)),
    take: (key) => (memory.delete(key), attempt(() => localStorage.removeItem(prefix + key), () => {})),
    get: (key) => memory.get(key) ?? attempt(() => JSON.parse(localStorage.getItem(prefix + key)), () => null),
    keys: () => [...memory.keys(), ...attempt(() => Object.keys(localStorage).filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)), () => [])].sort(),
  };
}

// Events go out at once, in order. What is not acknowledged in time goes out again, all of it, ever more seldom; it outlives this page.
function makeOutbox(tell, shelf, changed) {
  const waiting = new Map(); // id -> event, in order
  let number = 0, tries = 0, sent = 0, since = 0;
  for (const key of shelf.keys()) {
    const event = shelf.get(key);
    if (event?.id) waiting.set(event.id, { ...event, key });
  }
  const strip = ({ key, ...event }) => event;
  function post(events, after) {
    sent = Date.now();
    tell({ events: events.map(strip), after });
  }
  function all() {
    if (waiting.size) post([...waiting.values()], "");
  }
  const clock = setInterval(() => {
    if (!waiting.size) return;
    if (Date.now() - sent >= Math.min(LONGEST, WAIT * 2 ** tries)) {
      tries += 1;
      all();
    }
    changed();
  }, 250);
  const back = () => waiting.size && all();
  addEventListener("online", back);
  return {
    all,
    add(event) {
      const before = [...waiting.keys()].at(-1) ?? "";
      event.key = `${Date.now().toString(36).padStart(9, "0")}${(number++ % 46_656).toString(36).padStart(3, "0")} ${event.id}`;
      if (!waiting.size) since = Date.now();
      waiting.set(event.id, event);
      shelf.put(event.key, strip(event));
      if (!tries) post([event], before);
      changed();
    },
    saved(ids) {
      for (const id of ids) {
        const event = waiting.get(id);
        if (event) shelf.take(event.key);
        waiting.delete(id);
      }
      [tries, since] = [0, Date.now()];
      changed();
    },
    of: (item) => [...waiting.values()].filter((event) => event.item === item).map(strip),
    get: (id) => waiting.get(id),
    size: () => waiting.size,
    state: () => (!waiting.size ? "saved" : !tries ? "pending" : Date.now() - since < LATE && navigator.onLine !== false ? "resending" : "offline"),
    close() {
      clearInterval(clock);
      removeEventListener("online", back);
    },
  };
}
