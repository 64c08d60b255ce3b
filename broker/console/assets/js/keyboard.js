// Keys that work everywhere, and the list of them.

import { fill, h, icon } from "./dom.js";
import * as router from "./router.js";
import * as theme from "./theme.js";

const PLACES = { o: "overview", d: "devices", p: "partitions", f: "functions", a: "about" };
const LIST = [
  [["g", "o"], "Overview"], [["g", "d"], "Devices"], [["g", "p"], "Partitions"], [["g", "f"], "Functions"], [["g", "a"], "About"],
  [["/"], "Search devices"], [["t"], "Dark, light, as the system"], [["m"], "To the map"], [["↑", "↓"], "Walk through a table"],
  [["Enter"], "Open what is chosen"], [["n", "p"], "On the map: next or previous device"], [["+", "−", "0"], "On the map: zoom, show all"],
  [["?"], "This list"], [["Esc"], "Close"],
];
const WAIT_MS = 1200;

let armed = 0;

const isTyping = (target) => target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const help = document.getElementById("help");
  if (help.open) return;
  const isSecond = performance.now() - armed < WAIT_MS;
  armed = 0;
  if (isSecond && PLACES[event.key]) {
    event.preventDefault();
    router.go(`#/${PLACES[event.key]}`);
    return;
  }
  const action = {
    g: () => { armed = performance.now(); },
    "/": () => document.getElementById("search")?.focus(),
    "?": showHelp,
    t: theme.next,
    m: () => document.querySelector(".map canvas.over")?.focus(),
    Escape: () => history.length > 1 && router.path()?.length > 1 && history.back(),
    ArrowDown: () => document.querySelector(".main tbody tr[tabindex]")?.focus(),
  }[event.key];
  if (!action || (event.key === "ArrowDown" && event.target !== document.body && event.target.id !== "main")) return;
  event.preventDefault();
  action();
}

/** The list of keys. */
export function showHelp() {
  const help = document.getElementById("help");
  fill(help,
    h("header", null, h("h1", { id: "help-title" }, "Keyboard"),
      h("button", { type: "button", class: "quiet square", "aria-label": "Close", onclick: () => help.close() }, icon("close"))),
    h("dl", null, LIST.map(([keys, text]) => [h("dt", null, keys.map((key) => h("kbd", null, key))), h("dd", null, text)])));
  help.onclick = (event) => { if (event.target === help) help.close(); };
  help.showModal();
}

/** Listens. */
export function start() {
  addEventListener("keydown", onKey);
}

/** Stops. */
export function stop() {
  removeEventListener("keydown", onKey);
}
