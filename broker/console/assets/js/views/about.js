// Who is signed in, where, and what the page is made of.

import { append, fill, h, icon, panel, setText } from "../dom.js";
import { date } from "../format.js";
import { showHelp } from "../keyboard.js";
import * as store from "../store.js";

const MAY = [["status", "see the hub's status"], ["devices", "see devices"], ["twins", "read twins"], ["change", "change desired properties"], ["telemetry", "read telemetry"], ["live", "watch live"]];

const facts = (rows) => h("dl", { class: "facts" }, rows.map(([name, item, isWide]) => h("div", { class: isWide && "wide" }, h("dt", null, name), h("dd", null, item))));

/** The view. */
export function about(element) {
  const { session } = store;
  const hub = h("div", { class: "pad" });
  const show = (status) => fill(hub, facts([
    ["Hub", status.host || "–"], ["Cluster", h("code", null, status.cluster)], ["This node", status.node], ["Release", status.version],
    ["Nodes", status.nodes.length], ["Partitions", status.partitions.length], ["Watching live", status.live ? status.live.watchers : "no realtime tier"],
  ]));
  const licences = h("pre", { tabindex: "0", "aria-label": "Licences" }, "…");
  append(element, [h("div", { class: "page about" },
    panel("Hub", null, hub),
    panel("Signed in", h("button", { type: "button", class: "quiet", onclick: () => dispatchEvent(new Event("sign-out")) }, icon("out", "small"), "Sign out"),
      h("div", { class: "pad" }, facts([
        ["Policy", session.policy], ["Until", date(session.expires * 1000)], ["Rights", session.rights.join(", ")],
        ["Devices", session.devices.length > 0 ? session.devices.join(", ") : "all"],
        ["May", MAY.filter(([name]) => session.may[name]).map(([, text]) => text).join(", ") || "nothing here", true],
      ]))),
    panel("Keyboard", h("button", { type: "button", class: "quiet", onclick: showHelp }, icon("keyboard", "small"), "Show all keys"),
      h("p", { class: "pad note" }, "Press ? anywhere. g and a letter go to a section, / searches, arrows walk through tables and the map.")),
    panel("Made with", null, licences))]);
  if (store.status) show(store.status);
  const off = store.on("status", show);
  fetch("vendor/LICENSES.txt").then((answer) => answer.text()).then((text) => setText(licences, text), () => setText(licences, "The licences can't be read."));
  return { leave: off };
}
