// JSON as a tree that opens and closes.

import { h } from "./dom.js";
import { ago, date } from "./format.js";

/** Members of one object that are shown; the rest is counted. */
const MEMBERS_MAX = 200;

const isBranch = (value) => value !== null && typeof value === "object";

function stamp(metadata) {
  const text = metadata?.$lastUpdated;
  const ms = typeof text === "string" ? Date.parse(text) : NaN;
  return Number.isNaN(ms) ? null : `changed ${ago(ms)} (${date(ms)})`;
}

function leaf(key, value, metadata, mark) {
  const kind = value === null ? "null" : typeof value;
  return h("div", { class: "leaf", title: stamp(metadata) },
    key !== null && [h("span", { class: "key" }, key), ": "],
    h("span", { class: kind }, JSON.stringify(value)),
    mark && h("span", { class: "badge warn", title: "The device reports another value." }, "pending"));
}

function node(key, value, metadata, depth, pending) {
  const mark = pending?.(value) ?? null;
  if (!isBranch(value)) return leaf(key, value, metadata, mark === true);
  const entries = Array.isArray(value) ? value.map((item, i) => [String(i), item]) : Object.entries(value).filter(([name]) => !name.startsWith("$"));
  if (entries.length === 0) return h("div", { class: "leaf" }, key !== null && [h("span", { class: "key" }, key), ": "], Array.isArray(value) ? "[]" : "{}");
  const shown = entries.slice(0, MEMBERS_MAX).map(([name, item]) => {
    const below = pending && !Array.isArray(value) ? pending.under(name) : null;
    return h("li", null, node(name, item, metadata?.[name], depth + 1, below));
  });
  const more = entries.length > MEMBERS_MAX && h("li", { class: "count" }, `… and ${entries.length - MEMBERS_MAX} more`);
  if (key === null) return h("ul", null, shown, more);
  return h("details", { open: depth < 3 },
    h("summary", { title: stamp(metadata) }, h("span", { class: "key" }, key), " ",
      h("span", { class: "count" }, Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`)),
    h("ul", null, shown, more));
}

/** The tree of a value. `metadata` as twins have it. */
export function tree(value, metadata = null, pending = null) {
  if (isBranch(value) && Object.keys(value).every((name) => name.startsWith("$"))) return h("p", { class: "note" }, "Nothing here.");
  return h("div", { class: "tree" }, node(null, value, metadata, 0, pending));
}

/** Marks leaves of desired properties that the device reports otherwise (not those that it says nothing of). */
export function against(reported) {
  const judge = (value) => !isBranch(value) && reported !== undefined && reported !== value;
  judge.under = (name) => against(isBranch(reported) ? reported[name] : undefined);
  return judge;
}

/** A document without what the hub adds. */
export function plain(document) {
  return Object.fromEntries(Object.entries(document).filter(([name]) => !name.startsWith("$")));
}

/** The merge patch that turns `before` into `after` (RFC 7396). */
export function mergePatch(before, after) {
  const patch = {};
  for (const name of Object.keys(before)) if (!(name in after)) patch[name] = null;
  for (const [name, value] of Object.entries(after)) {
    const old = before[name];
    if (JSON.stringify(old) === JSON.stringify(value)) continue;
    const both = isBranch(old) && isBranch(value) && !Array.isArray(old) && !Array.isArray(value);
    patch[name] = both ? mergePatch(old, value) : value;
  }
  return patch;
}
