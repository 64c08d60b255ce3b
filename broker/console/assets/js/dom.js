// Making elements. Text goes in as text nodes only, so nothing that a device says is ever markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on…` are listeners, `class` and attributes as in HTML; null and false leave one out. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

/** Adds children: nodes, texts, lists of these; null and false are nothing. */
export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Puts children in the place of what is there. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** An icon of the sprite. */
export function icon(name, extra = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon ${extra}`.trim());
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `img/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** Sets text only when it is another, so that nothing is laid out for nothing. */
export function setText(element, text) {
  const value = String(text);
  if (element.textContent !== value) element.textContent = value;
}

/** What a view shows where there is nothing. */
export function empty(iconName, title, text, ...more) {
  const picture = icon("about");
  picture.firstChild.setAttribute("href", `img/icons.svg#${iconName}`);
  return h("div", { class: "empty" }, picture, h("h2", null, title), text && h("p", null, text), more);
}

/** A problem in words. */
export function problem(error) {
  return h("p", { class: "problem", role: "alert" }, error?.message ?? String(error));
}

/** A panel with a head. */
export function panel(title, tools, ...body) {
  return h("section", { class: "panel", "aria-label": title },
    h("header", null, h("h2", null, title), h("span", { class: "spring" }), tools), body);
}

/** A row of choices of which one is pressed. */
export function segments(label, choices, chosen, onchange) {
  const buttons = choices.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text));
  function choose(value) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(choices[i][0] === value)));
    onchange(value);
  }
  return h("div", { class: "segments", role: "group", "aria-label": label }, buttons);
}
