// The list of devices, with search.

import * as api from "../api.js";
import { append, empty, fill, h, icon, panel, problem, setText } from "../dom.js";
import { ago, date } from "../format.js";
import * as router from "../router.js";
import * as store from "../store.js";
import { row, table } from "../table.js";

const PAGE = 50;
/** Pages without a hit that one search asks for by itself. */
const EMPTY_PAGES_MAX = 20;

/** A device's state as a badge. */
export function stateBadge(device) {
  const [kind, text] = !device.enabled ? ["bad", "disabled"] : device.connected ? ["good", "connected"] : ["", "offline"];
  return h("span", { class: `badge ${kind}` }, h("span", { class: "dot" }), text);
}

function deviceRow(device) {
  const href = `#/devices/${encodeURIComponent(device.id)}`;
  return row(() => router.go(href),
    h("td", null, h("a", { class: "device-id", href, tabindex: "-1" }, device.id, device.edge && h("span", { class: "badge" }, "edge"))),
    h("td", null, stateBadge(device)),
    h("td", { class: "num", title: date(device.lastActivity) }, ago(device.lastActivity, Date.now() + store.skew)),
    h("td", { class: "only-wide note" }, device.auth),
    h("td", { class: "only-wide note" }, device.model ? h("code", null, device.model) : "–"));
}

/** The view. */
export function devices(element) {
  const query = router.parameter("q");
  const input = h("input", { type: "search", value: query, placeholder: "Part of an id", "aria-label": "Part of a device's id", spellcheck: "false", autocomplete: "off" });
  const form = h("form", { class: "list-search", role: "search", onsubmit: (event) => {
    event.preventDefault();
    router.go(input.value.trim() ? `#/devices?q=${encodeURIComponent(input.value.trim())}` : "#/devices");
  } }, input, h("button", { type: "submit" }, icon("search", "small"), "Search"));
  const { element: wrap, body } = table("Devices", [["Device"], ["State"], ["Last activity", "num"], ["Signs in with", "only-wide"], ["Model", "only-wide"]]);
  const said = h("span"), more = h("button", { type: "button", hidden: true, onclick: () => load() }, "More");
  const foot = h("div", { class: "list-foot" }, said, h("span", { class: "spring" }), more);
  const content = h("div", null, wrap, foot);
  append(element, [h("div", { class: "page" }, panel(query ? `Devices with “${query}”` : "Devices", form, content))]);
  const control = new AbortController();
  let next = "", shown = 0;

  async function load() {
    more.disabled = true;
    setText(said, "Looking …");
    try {
      for (let round = 0; round < EMPTY_PAGES_MAX; round++) {
        const page = await api.get(`devices?limit=${PAGE}&q=${encodeURIComponent(query)}&from=${encodeURIComponent(next)}`, control.signal);
        body.append(...page.devices.map(deviceRow));
        shown += page.devices.length;
        next = page.next ?? "";
        if (!next || page.devices.length > 0) break;
      }
      if (shown === 0 && !next) {
        const none = query ? ["search", "No such device", `No device has “${query}” in its id.`] : ["devices", "No devices yet", "Devices show here once they are registered."];
        fill(content, empty(...none));
        return;
      }
      setText(said, next ? `${shown} shown` : `${shown} ${shown === 1 ? "device" : "devices"}`);
      more.hidden = !next;
    } catch (error) {
      if (error.name !== "AbortError") fill(said, problem(error));
    } finally {
      more.disabled = false;
    }
  }
  load();
  if (query) input.value = query;
  return { leave: () => control.abort() };
}
