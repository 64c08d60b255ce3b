// The console: sign-in, frame, views.

import * as api from "./api.js";
import { append, fill, h, icon, setText } from "./dom.js";
import * as keyboard from "./keyboard.js";
import * as live from "./live.js";
import * as router from "./router.js";
import * as session from "./session.js";
import * as store from "./store.js";
import * as theme from "./theme.js";
import { about } from "./views/about.js";
import { device } from "./views/device.js";
import { devices } from "./views/devices.js";
import { functions } from "./views/functions.js";
import { overview } from "./views/overview.js";
import { partitions } from "./views/partitions.js";
import { signIn } from "./views/signin.js";

const $ = (id) => document.getElementById(id);
const ROUTES = [
  { name: "overview", title: "Overview", picture: icon("overview"), view: overview },
  { name: "devices", title: "Devices", picture: icon("devices"), view: devices },
  { name: "devices", title: "Device", deep: true, view: device },
  { name: "partitions", title: "Partitions", picture: icon("partitions"), view: partitions },
  { name: "functions", title: "Functions", picture: icon("functions"), view: functions },
  { name: "about", title: "About", picture: icon("about"), view: about },
];

let stopAll = null;

function nav() {
  const count = h("span", { class: "count", hidden: true });
  const items = ROUTES.filter((route) => route.picture).map((route) =>
    h("a", { class: "nav-item", href: `#/${route.name}`, "data-name": route.name, title: route.title }, route.picture.cloneNode(true),
      h("span", { class: "name" }, route.title), route.name === "overview" && count));
  const cluster = h("b", null, "…"), version = h("span");
  fill($("nav"), h("a", { class: "brand", href: "#/overview" }, h("img", { src: "img/logo.svg", alt: "" }), h("span", null, "Fleetline")), items,
    h("div", { class: "nav-foot" }, cluster, version,
      h("span", { class: "keys" }, h("kbd", null, "?"), "keyboard")));
  const showCount = () => {
    count.hidden = store.alarmsUnseen === 0;
    setText(count, store.alarmsUnseen > 99 ? "99+" : store.alarmsUnseen);
  };
  return [
    store.on("alarm", showCount),
    store.on("alarms-seen", showCount),
    store.on("status", (status) => {
      setText(cluster, status.host || status.cluster);
      setText(version, `node ${status.node} of ${status.nodes.length} · ${status.version}`);
    }),
  ];
}

const LINKS = {
  connecting: ["warn", "Connecting", "Connecting to the live feed"],
  live: ["good", "Live", "The live feed is on"],
  polling: ["good", "Polling", "No live feed: the status is asked every other second"],
  lost: ["bad", "Offline", "The connection is lost"],
};

function top() {
  const title = h("h1");
  const dot = h("span", { class: "dot" }), name = h("span", { class: "name" });
  const pill = h("span", { class: "pill", role: "status" }, dot, name);
  const input = h("input", { id: "search", type: "search", placeholder: "Search devices", "aria-label": "Search devices", autocomplete: "off", spellcheck: "false" });
  const form = h("form", { class: "search", role: "search", onsubmit: (event) => {
    event.preventDefault();
    router.go(`#/devices?q=${encodeURIComponent(input.value.trim())}`);
    input.blur();
  } }, icon("search"), input, h("kbd", { "aria-hidden": "true" }, "/"));
  const switcher = h("button", { type: "button", class: "quiet square", onclick: theme.next });
  fill($("top"), title, h("span", { class: "spring" }), form, pill, switcher);
  const showTheme = () => {
    const chosen = theme.chosen();
    const picture = { dark: icon("moon"), light: icon("sun"), auto: icon("auto") }[chosen];
    fill(switcher, picture);
    switcher.title = `Theme: ${chosen === "auto" ? "as the system" : chosen}`;
    switcher.setAttribute("aria-label", switcher.title);
  };
  const showLink = () => {
    const [kind, text, long] = LINKS[store.link];
    dot.className = `dot ${kind}`;
    pill.className = `pill ${store.link}`;
    pill.title = long;
    setText(name, text);
  };
  showTheme();
  showLink();
  return { title, off: [theme.onChange(showTheme), store.on("link", showLink)] };
}

/** The banner comes only after a moment: a link that is back at once needs no words. */
function banner() {
  let timer = 0;
  const element = $("banner");
  return store.on("link", (link) => {
    clearTimeout(timer);
    if (link !== "lost") {
      element.hidden = true;
      return;
    }
    timer = setTimeout(() => {
      fill(element, h("span", { class: "spin", "aria-hidden": "true" }), "Connection lost. What you see may be old; trying again.");
      element.hidden = false;
    }, 800);
  });
}

/** Alarms are said to who can't see them, one at a time. */
function speaker() {
  let last = 0;
  return store.on("alarm", (alarm) => {
    const now = Date.now();
    if (now - last < 4000) return;
    last = now;
    $("said").textContent = `Alarm of ${alarm.device}: ${alarm.text}`;
  });
}

async function open() {
  store.setSession(await api.get("session"));
  $("signin").hidden = true;
  $("app").hidden = false;
  const bar = top();
  const off = [...nav(), ...bar.off, banner(), speaker()];
  const stopLive = live.start();
  keyboard.start();
  router.start($("main"), ROUTES, (route) => {
    setText(bar.title, route.title);
    for (const item of $("nav").querySelectorAll(".nav-item")) {
      if (item.dataset.name === route.name) item.setAttribute("aria-current", "page");
      else item.removeAttribute("aria-current");
    }
  });
  stopAll = () => {
    stopLive();
    keyboard.stop();
    router.stop();
    off.forEach((stop) => stop());
    $("app").hidden = true;
    stopAll = null;
  };
}

function askToSignIn(message) {
  stopAll?.();
  $("signin").hidden = false;
  signIn($("signin"), message, async () => {
    await open();
    $("main").focus();
  });
}

async function begin() {
  session.start();
  api.whenSignedOut((message) => { if (stopAll) askToSignIn(message); });
  if (!session.current()) return askToSignIn(null);
  try {
    await open();
  } catch (error) {
    if (error.status === 401) return askToSignIn("The token is not valid (any more).");
    append(document.body, [h("p", { class: "problem", role: "alert" }, error.message)]);
    setTimeout(() => location.reload(), 3000);
  }
  return undefined;
}

addEventListener("sign-out", () => {
  session.end();
  askToSignIn("You are signed out.");
});
// A token that comes into an open page (a second address from the command line) begins anew.
addEventListener("hashchange", () => { if (location.hash.startsWith("#token=")) location.reload(); });
begin();
