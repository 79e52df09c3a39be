// Building the page. Everything is set as text or as an attribute, never as markup: names and headers come from clients.

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 300;

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function makeSvg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets the text only where it is another one, so that a selection survives an update. */
export function setText(element, text) {
  const shown = cut(text);
  if (element.textContent !== shown) element.textContent = shown;
}

export function cut(text) {
  const whole = String(text);
  return whole.length > LONGEST ? `${whole.slice(0, LONGEST)}…` : whole;
}

export function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

/** A list of facts; an entry without a value is left out. */
export function facts(entries) {
  const list = make("dl", { class: "facts" });
  for (const [name, value] of entries) {
    if (value !== null && value !== undefined && value !== "") list.append(make("dt", {}, name), make("dd", {}, cut(value)));
  }
  return list;
}
