// All at a glance: rates, map, alarms, records, throughput.

import { append, empty, fill, h, icon, panel, segments, setText } from "../dom.js";
import { bytes, bytesParts, count, short, time, value } from "../format.js";
import { lines, spark } from "../chart.js";
import { worldMap } from "../map.js";
import * as store from "../store.js";

const SPARK_POINTS = 120;
const RECORDS_SHOWN = 40;

function tile(name, picture, href, color) {
  const figure = h("span"), unit = h("span", { class: "unit" }), more = h("div", { class: "more" });
  const plot = h("div", { class: "spark", "aria-hidden": "true" });
  const element = h(href ? "a" : "div", { class: "tile", href },
    h("div", { class: "what" }, picture, name), h("div", { class: "value" }, figure, unit), more, color && plot);
  return { element, plot, set: (text, unitText, moreText) => { setText(figure, text); setText(unit, unitText ?? ""); setText(more, moreText ?? ""); } };
}

const tail = (name) => [store.series.time.slice(-SPARK_POINTS), store.series[name].slice(-SPARK_POINTS)];

function tiles() {
  const rates = tile("Messages in", icon("in", "small"), null, "accent");
  const out = tile("Messages out", icon("send", "small"), null, "blue");
  const volume = tile("Bytes in", icon("bytes", "small"), null, "violet");
  const devices = tile("Devices", icon("devices", "small"), "#/devices");
  const partitions = tile("Partitions", icon("partitions", "small"), "#/partitions");
  const sparks = [];
  const showRates = () => {
    const now = store.rates;
    rates.set(short(now.in), "/s", peak("in"));
    out.set(short(now.out), now.out === null ? "" : "/s", now.out === null ? "not counted here" : peak("out"));
    const [figure, unit] = bytesParts(now.bytesIn);
    volume.set(figure, unit && `${unit}/s`, now.in > 0 && now.bytesIn ? `${bytes(now.bytesIn / now.in)} a message` : "");
    sparks.forEach((line) => line.update());
  };
  const peak = (name) => {
    const highest = Math.max(...store.series[name].slice(-SPARK_POINTS * 5).filter((rate) => rate !== null));
    return Number.isFinite(highest) ? `peak ${short(highest)}/s` : "";
  };
  const showStatus = () => {
    const status = store.status;
    if (!status) return;
    const { registered, connected, disabled, partitionsMissing } = status.devices;
    const more = partitionsMissing > 0 ? "not all partitions answer" : `of ${count(registered)} registered${disabled > 0 ? `, ${count(disabled)} disabled` : ""}`;
    devices.set(count(connected), "online", more);
    const led = status.partitions.filter((row) => row.leader !== null).length;
    const alive = status.nodes.filter((node) => node.alive).length;
    const lag = status.partitions.reduce((sum, row) => sum + (row.info?.replicationLag ?? 0), 0);
    partitions.set(`${led}`, `of ${status.partitions.length} led`, `${alive} of ${status.nodes.length} nodes up${lag > 0 ? ` · ${count(lag)} behind` : ""}`);
  };
  const element = h("div", { class: "tiles" }, [rates, out, volume, devices, partitions].map((one) => one.element));
  const begin = () => {
    sparks.push(spark(rates.plot, () => tail("in")), spark(out.plot, () => tail("out"), "blue"), spark(volume.plot, () => tail("bytesIn"), "violet"));
    showRates();
    showStatus();
  };
  const off = [store.on("rates", showRates), store.on("status", showStatus)];
  return { element, begin, leave: () => { off.forEach((stop) => stop()); sparks.forEach((line) => line.destroy()); } };
}

function throughput() {
  let span = 300;
  const rateNow = h("b"), bytesNow = h("b");
  const legend = h("div", { class: "legend" }, h("span", null, "messages/s ", rateNow), h("span", { class: "second" }, "bytes/s ", bytesNow));
  const box = h("div", { class: "chart-box" });
  const element = panel("Throughput", [legend, segments("Time shown", [[60, "1 min"], [300, "5 min"], [900, "15 min"]], span, (chosen) => { span = chosen; chart?.update(); })], box);
  element.classList.add("chart-panel");
  let chart = null, hovered = null;
  const show = () => {
    const { series } = store;
    const at = hovered ?? series.time.length - 1;
    setText(rateNow, short(series.in[at]));
    setText(bytesNow, bytes(series.bytesIn[at]));
  };
  const begin = () => {
    chart = lines(box, {
      lines: [{ color: "c1", scale: "left" }, { color: "c2", scale: "right" }],
      data: () => [store.series.time, store.series.in, store.series.bytesIn],
      span: () => span, left: short, right: bytes,
      onHover: (index) => { hovered = index; show(); },
    });
    show();
  };
  const off = store.on("rates", () => { chart?.update(); show(); });
  return { element, begin, leave: () => { off(); chart?.destroy(); } };
}

function alarmRow(alarm, isNew, map) {
  return h("a", {
    class: `alarm ${alarm.level}${isNew ? " new" : ""}`, href: alarm.device ? `#/devices/${encodeURIComponent(alarm.device)}` : null,
    onclick: (event) => {
      // On the map when it is there, on its own page with a second click.
      if (!store.places.has(alarm.device) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      map().select(alarm.device);
    },
  },
  icon("alert", "small"), h("b", null, store.places.get(alarm.device)?.label || alarm.device || "hub"), h("time", null, time(alarm.at)),
  h("p", null, alarm.text, typeof alarm.value === "number" && [" · ", h("b", null, value(alarm.value))]));
}

function alarmFeed(map) {
  const list = h("div", { class: "feed", "aria-label": "Alarms", role: "log", "aria-live": "off" });
  const element = panel("Alarms", null, list);
  const all = () => {
    if (store.alarms.length === 0) fill(list, empty("bell", "All quiet", "Alarms that functions publish show here as they come."));
    else fill(list, store.alarms.map((alarm) => alarmRow(alarm, false, map)));
  };
  const off = store.on("alarm", (alarm) => {
    store.seenAlarms();
    if (list.firstElementChild?.classList.contains("empty")) list.replaceChildren();
    list.prepend(alarmRow(alarm, true, map));
    while (list.childElementCount > store.alarms.length) list.lastElementChild.remove();
  });
  all();
  store.seenAlarms();
  return { element, leave: off };
}

function recordRow(record) {
  return h("a", { class: "record", href: `#/devices/${encodeURIComponent(record.device)}` },
    h("b", null, record.device, record.event && h("span", { class: "faint" }, " · event")), h("span", { class: "place" }, `${record.partition} @ ${count(record.offset)}`),
    h("code", null, record.text));
}

function recordFeed() {
  const list = h("div", { class: "feed" });
  let paused = false;
  const button = h("button", { type: "button", class: "quiet square", "aria-pressed": "false", title: "Pause", "aria-label": "Pause", onclick: () => {
    paused = !paused;
    button.setAttribute("aria-pressed", paused);
    fill(button, paused ? icon("play", "small") : icon("pause", "small"));
    if (!paused) all();
  } }, icon("pause", "small"));
  const element = panel("Records", [h("span", { class: "note" }, "a sample"), button], list);
  function all() {
    if (store.records.length === 0) fill(list, empty("overview", "No records yet", "A sample of what devices send shows here."));
    else fill(list, store.records.slice(-RECORDS_SHOWN).reverse().map(recordRow));
  }
  // Who points at the list wants to read it.
  const off = store.on("records", (rows) => {
    if (paused || list.matches(":hover, :focus-within")) return;
    if (list.firstElementChild?.classList.contains("empty")) list.replaceChildren();
    list.prepend(...rows.slice(-8).reverse().map(recordRow));
    while (list.childElementCount > RECORDS_SHOWN) list.lastElementChild.remove();
  });
  all();
  return { element, leave: off };
}

/** The view. */
export function overview(element) {
  let map = null;
  const top = tiles(), chart = throughput(), alarms = alarmFeed(() => map), records = recordFeed();
  const mapPanel = h("section", { class: "panel map-panel", "aria-label": "Map" });
  append(element, [h("div", { class: "overview" }, top.element, mapPanel, chart.element, h("div", { class: "side" }, alarms.element, records.element))]);
  map = worldMap(mapPanel);
  top.begin();
  chart.begin();
  return { leave: () => { map.destroy(); [top, chart, alarms, records].forEach((part) => part.leave()); } };
}
