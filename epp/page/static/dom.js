// Building the page. Everything is set as text or as an attribute, never as markup: names and headers come from clients.

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 300;
// Control characters, and those that turn the direction of what follows: with them a name could rewrite our own words.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

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
  const known = children.filter((child) => child !== null && child !== undefined);
  element.append(...known.map((child) => (typeof child === "string" ? visible(child) : child)));
  return element;
}

/** Sets the text only where it is another one, so that a selection survives an update. */
export function setText(element, text) {
  const shown = cut(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** The text with what cannot be seen made visible. */
export const visible = (text) => String(text).replace(UNSEEN, (one) => `\\u${one.codePointAt(0).toString(16).padStart(4, "0")}`);

export function cut(text) {
  const whole = visible(text);
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
