// Tables that the keyboard walks through.

import { h } from "./dom.js";

/** A table. `heads`: `[text, class]`; rows are made with `row`. */
export function table(label, heads, ...rows) {
  const body = h("tbody", null, rows);
  body.addEventListener("keydown", walk);
  const head = h("tr", null, heads.map(([text, name]) => h("th", { scope: "col", class: name }, text)));
  const element = h("div", { class: "table-wrap" }, h("table", { "aria-label": label }, h("thead", null, head), body));
  return { element, body };
}

/** A row that does something. Only one row of a table is in the order of tabs; arrows reach the others. */
export function row(action, ...cells) {
  return h("tr", {
    tabindex: "0",
    onclick: (event) => { if (!event.target.closest("a, button")) action(); },
    onkeydown: (event) => { if (event.key === "Enter" && event.target === event.currentTarget) action(); },
  }, cells);
}

const STEPS = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };

function walk(event) {
  const step = STEPS[event.key];
  if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  const rows = [...event.currentTarget.querySelectorAll("tr[tabindex]")];
  const at = rows.indexOf(document.activeElement);
  if (at < 0) return;
  event.preventDefault();
  const to = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
  to.focus();
  to.scrollIntoView({ block: "nearest" });
}
