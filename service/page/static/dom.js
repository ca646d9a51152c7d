// Elements without markup in strings: nothing that is shown is ever taken for HTML.

export const byId = (id) => document.getElementById(id);

/** An element with properties (`class`, `text`, attributes) and children. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same in SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") element.textContent = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Changes a text only if it is another one, so that selections stay and screen readers are left alone. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const shown = new WeakMap();

/** Calls `draw` for the children of an element only if what they show has changed. */
export function redraw(element, data, draw) {
  const now = JSON.stringify(data);
  if (shown.get(element) === now) return;
  shown.set(element, now);
  const drawn = [draw()].flat();
  const region = element.querySelector(":scope > .scroll"), anew = drawn.find((each) => each.className === "scroll");
  if (region && anew && element.children.length === drawn.length) {
    region.replaceChildren(...anew.childNodes); // the region stays, so that it keeps the focus, and how far it is scrolled
    drawn.forEach((each, n) => each === anew || element.children[n].replaceWith(each));
  } else element.replaceChildren(...drawn);
}

/** A table that can be scrolled by keyboard where it is too wide. */
export function table(label, heads, rows) {
  return el("div", { class: "scroll", role: "region", "aria-label": `${label}: table`, tabindex: 0 },
    el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col", text: head })))),
      el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell, n) =>
        cell instanceof Element ? el(n ? "td" : "th", n ? {} : { scope: "row" }, cell)
          : el(n ? "td" : "th", { text: cell, scope: n ? null : "row" })))))));
}
