// One device: who it is, where it is, what it sends, its twin.

import * as api from "../api.js";
import { append, empty, fill, h, icon, panel, problem, segments, setText } from "../dom.js";
import { ago, bytes, count, date, preview, time, value } from "../format.js";
import { multiple } from "../chart.js";
import { worldMap } from "../map.js";
import * as store from "../store.js";
import { against, mergePatch, plain, tree } from "../tree.js";
import { stateBadge } from "./devices.js";

const REFRESH_MS = 4000;
const RECORDS = 120;
/** Fields that get a chart. */
const FIELDS_MAX = 8;
const COLORS = ["c1", "c2", "c3", "c4", "c5", "c6"];
/** Fields that tell the place: they are on the map. */
const PLACE = /(^|\.)(lat|lon|lng|latitude|longitude)$/i;
const TIMES = /(^|\.)(at|ts|time|timestamp|epoch)$/i;

/** The numeric fields of records, by path: `[[time, value], …]`, oldest first. */
function fieldsOf(records) {
  const fields = new Map();
  const walk = (body, path, at, depth) => {
    if (typeof body === "number") {
      if (PLACE.test(path) || TIMES.test(path)) return;
      if (!fields.has(path)) fields.set(path, []);
      fields.get(path).push([at / 1000, body]);
    } else if (body && typeof body === "object" && !Array.isArray(body) && depth < 4) {
      for (const [name, item] of Object.entries(body)) walk(item, path ? `${path}.${name}` : name, at, depth + 1);
    }
  };
  for (const record of [...records].reverse()) if (record.kind === "json") walk(record.body, "", record.at, 0);
  return [...fields].filter(([, rows]) => rows.length > 1);
}

function charts() {
  const grid = h("div", { class: "multiples" });
  const element = panel("Values", h("span", { class: "note" }, "of recent telemetry"), grid);
  element.hidden = true;
  const known = new Map();
  function show(records) {
    for (const [path, rows] of fieldsOf(records).slice(0, FIELDS_MAX)) {
      const now = h("b");
      let one = known.get(path);
      if (one) {
        one.rows = rows;
        one.chart.update();
        one.say(null);
        continue;
      }
      if (known.size >= FIELDS_MAX) continue;
      one = { rows };
      const plot = h("div", { class: "plot" });
      grid.append(h("div", { class: "multiple" }, h("header", null, h("span", { title: path }, path || "value"), now), plot));
      const current = one;
      one.say = (index) => setText(now, value((current.rows[index ?? current.rows.length - 1] ?? current.rows.at(-1))[1]));
      element.hidden = false;
      one.chart = multiple(plot, {
        color: COLORS[known.size % COLORS.length], group: "device", onHover: one.say,
        data: () => [current.rows.map(([at]) => at), current.rows.map(([, item]) => item)],
      });
      one.say(null);
      known.set(path, one);
    }
  }
  return { element, show, leave: () => known.forEach((one) => one.chart.destroy()) };
}

function recordRow(record) {
  const lists = [["Properties", record.properties], ["System", record.system]].filter(([, list]) => Object.keys(list).length > 0);
  return h("details", { class: "record-row", "data-offset": record.offset },
    h("summary", null, h("span", { title: date(record.at) }, time(record.at)), h("code", null, preview(record.body)),
      h("span", { class: "num faint" }, `@ ${count(record.offset)}`), h("span", { class: "num faint" }, bytes(record.bytes))),
    h("div", { class: "inside" },
      record.kind === "json" && record.body && typeof record.body === "object" ? tree(record.body) : h("p", { class: "tree" }, preview(record.body)),
      record.kind.startsWith("cut") && h("p", { class: "note" }, `The rest of ${bytes(record.bytes)} is not shown.`),
      lists.map(([name, list]) => h("div", null, h("h3", null, name), tree(list)))));
}

function recordList() {
  const list = h("div", { class: "records-list" });
  const said = h("span", { class: "note only-wide" });
  const element = panel("Recent telemetry", said, list);
  let newest = -1;
  function show(answer) {
    setText(said, `partition ${answer.partition}, ${count(answer.scanned.records)} records looked at`);
    if (answer.records.length === 0) {
      fill(list, empty("overview", "Nothing lately", answer.complete ? "The device has no telemetry in the stream." : "No telemetry of this device among the last records of its partition."));
      return;
    }
    if (newest < 0) list.replaceChildren();
    const added = answer.records.filter((record) => record.offset > newest);
    if (added.length === 0) return;
    newest = answer.records[0].offset;
    list.prepend(...added.map(recordRow));
    while (list.childElementCount > RECORDS) list.lastElementChild.remove();
  }
  return { element, show };
}

function identityPanel(answer) {
  const { identity } = answer;
  const now = Date.now() + store.skew;
  const facts = [
    ["Last activity", h("span", { title: date(identity.lastActivity) }, ago(identity.lastActivity, now))],
    [identity.connected ? "Connected" : "Disconnected", h("span", { title: date(identity.connectionChanged) }, ago(identity.connectionChanged, now))],
    identity.node !== null && ["On node", identity.node],
    ["Partition", answer.partition],
    ["Signs in with", identity.auth],
    ["Commands waiting", identity.commands],
    identity.model && ["Model", h("code", null, identity.model)],
    identity.created && ["Registered", date(identity.created)],
    identity.statusReason && ["Status reason", identity.statusReason],
    identity.scope && ["Scope", h("code", null, identity.scope)],
    ["Generation", h("code", null, identity.generation)],
    identity.subscriptions.length > 0 && ["Listens to", identity.subscriptions.map((filter) => h("div", null, h("code", null, filter)))],
  ].filter(Boolean);
  const modules = answer.modules.length > 0 && h("div", { class: "pad" }, h("h3", null, "Modules"), answer.modules.map((module) =>
    h("p", null, module.module, " ", stateBadge(module))));
  return panel("Identity", null, h("div", { class: "pad" }, h("dl", { class: "facts" }, facts.map(([name, item]) => h("div", null, h("dt", null, name), h("dd", null, item))))), modules);
}

function editor(id, twin, done, cancel) {
  const before = plain(twin.desired);
  const text = h("textarea", { spellcheck: "false", "aria-label": "Desired properties", value: JSON.stringify(before, null, 2) });
  const said = h("div", { role: "status" });
  const apply = h("button", { type: "submit", class: "main-action" }, icon("check", "small"), "Apply");
  const form = h("form", { class: "editor", onsubmit: submit }, text, said, h("div", { class: "row" }, apply, h("button", { type: "button", onclick: cancel }, "Cancel"),
    h("span", { class: "note" }, "What you take out is removed. A change that came meanwhile is never overwritten.")));
  async function submit(event) {
    event.preventDefault();
    let after;
    try {
      after = JSON.parse(text.value);
      if (after === null || typeof after !== "object" || Array.isArray(after)) throw new Error("Desired properties are an object.");
    } catch (error) {
      fill(said, problem(error));
      return;
    }
    const patch = mergePatch(before, after);
    if (Object.keys(patch).length === 0) {
      cancel();
      return;
    }
    apply.disabled = true;
    try {
      done(await api.patch(`devices/${encodeURIComponent(id)}/twin`, { desired: patch, version: twin.version }));
    } catch (error) {
      fill(said, problem(error.status === 412 ? "The twin has changed meanwhile: cancel, look at it, and try again." : error));
    } finally {
      apply.disabled = false;
    }
  }
  return form;
}

function twinPanel(id) {
  let twin = null, mayChange = false, shown = "desired", editing = false;
  const body = h("div", { class: "pad" });
  const edit = h("button", { type: "button", class: "quiet", onclick: () => { editing = true; draw(); } }, icon("edit", "small"), "Edit");
  const tabs = segments("Part of the twin", [["desired", "Desired"], ["reported", "Reported"], ["tags", "Tags"]], shown, (name) => { shown = name; editing = false; draw(); });
  const element = panel("Twin", [edit, tabs], body);
  function draw() {
    edit.hidden = !mayChange || shown !== "desired" || editing;
    if (!twin) {
      fill(body, h("p", { class: "note" }, "Your policy may not read twins."));
      return;
    }
    if (editing) {
      fill(body, editor(id, twin, (changed) => { twin = changed; editing = false; draw(); }, () => { editing = false; draw(); }));
      body.querySelector("textarea").focus();
      return;
    }
    const part = twin[shown];
    const marks = shown === "desired" ? against(twin.reported) : null;
    fill(body, tree(part, part.$metadata, marks), part.$version !== undefined && h("p", { class: "note" }, `version ${part.$version}`));
  }
  function show(answer) {
    const isSame = JSON.stringify(answer.twin) === JSON.stringify(twin) && twin !== null;
    mayChange = answer.may.change;
    if (editing || isSame) return;
    twin = answer.twin;
    draw();
  }
  return { element, show };
}

/** The view. */
export function device(element, [id]) {
  const path = `devices/${encodeURIComponent(id)}`;
  const state = h("span"), label = h("span", { class: "note" });
  const head = h("div", { class: "device-head" },
    h("a", { class: "button square quiet", href: "#/devices", "aria-label": "All devices" }, icon("back")), h("h1", null, id), state, label);
  const values = charts(), records = recordList(), twin = twinPanel(id);
  const identity = h("div"), mapBox = h("section", { class: "panel mini-map", "aria-label": "Map", hidden: true });
  const left = h("div", null, values.element, records.element), right = h("div", null, mapBox, identity, twin.element);
  const page = h("div", { class: "page" }, head, h("div", { class: "device-grid" }, left, right));
  append(element, [page]);
  let map = null, stopTelemetry = () => {}, told = "";

  const showPlace = () => {
    const place = store.places.get(id);
    if (!place || map) return;
    mapBox.hidden = false;
    map = worldMap(mapBox, { only: id });
    setText(label, place.label && place.label !== id ? place.label : "");
  };
  const off = store.on("places", showPlace);
  showPlace();

  const stop = api.poll(REFRESH_MS, async (signal) => {
    try {
      const answer = await api.get(path, signal);
      fill(state, stateBadge(answer.identity));
      const text = JSON.stringify([answer.identity, answer.modules]);
      fill(identity, identityPanel(answer));
      told = text;
      twin.show(answer);
      if (!answer.may.telemetry) fill(left, panel("Recent telemetry", null, empty("overview", "Not yours to see", "Your policy may not read telemetry.")));
      else if (stopTelemetry.started !== true) followTelemetry();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (!told) fill(page, head, problem(error));
      throw error;
    }
  });
  function followTelemetry() {
    stopTelemetry = api.poll(REFRESH_MS, async (signal) => {
      const answer = await api.get(`${path}/telemetry?limit=${RECORDS}`, signal);
      values.show(answer.records);
      records.show(answer);
      if (!store.places.has(id)) placeFrom(answer.records);
    });
    stopTelemetry.started = true;
  }
  /** Puts the device on the map out of its records, when no live feed does. */
  function placeFrom(list) {
    const number = (body, ...names) => names.map((name) => body[name]).find((item) => typeof item === "number") ?? null;
    const rows = list.filter((record) => record.kind === "json" && record.body && typeof record.body === "object").reverse().map(({ body, at }) =>
      [id, number(body, "latitude", "lat"), number(body, "longitude", "lon"), number(body, "heading", "track", "true_track"), number(body, "altitude", "alt"), number(body, "speed", "velocity"), at, null]);
    for (const one of rows) if (one[1] !== null && one[2] !== null) store.takePositions([one]);
  }
  return { title: id, leave: () => { stop(); stopTelemetry(); off(); map?.destroy(); values.leave(); } };
}
