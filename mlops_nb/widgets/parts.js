// What every card is made of. Python puts this before the card's own script, so nothing is fetched from elsewhere.
// Texts come from data: they are set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties))
    key in element && key !== "style" ? (element[key] = value) : element.setAttribute(key, value);
  element.append(...children);
  return element;
}
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Change a text or an attribute only if it differs, so that selections, focus and animations survive.
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
// Put children in this order, and move none that stands right: a moved element loses the focus.
function arrange(parent, children) {
  for (const child of [...parent.children]) if (!children.includes(child)) child.remove();
  children.forEach((child, place) => parent.children[place] !== child && parent.insertBefore(child, parent.children[place] ?? null));
}

// A state as an icon and a word. `look(name)` says which: {path, words}; what it returns draws another state and gives the element back.
function makeBadge(look) {
  const path = draw("path"), words = make("span");
  const state = make("span", { className: "state" }, draw("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, path), words);
  return (name, text) => {
    const found = look(name);
    mark(state, "data-state", name);
    mark(path, "d", found.path);
    write(words, text ?? found.words);
    return state;
  };
}
