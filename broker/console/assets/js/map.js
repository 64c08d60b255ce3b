// The live map: pan and zoom, devices that move, trails, alarms, a card for the chosen one.
//
// Two canvases: land below, drawn when the view changes; devices above, drawn while something moves. A device
// glides from where it was to where it said it is, over about the time between its last two words.

import { fill, h, icon, setText } from "./dom.js";
import { ago, count, value } from "./format.js";
import { spark } from "./chart.js";
import { mercatorX, mercatorY, outlines } from "./mapdata.js";
import { altitudeColor, drawBase, drawPulse, drawSymbol, screenX, screenY } from "./mapdraw.js";
import * as store from "./store.js";
import * as theme from "./theme.js";

const SIZE_MIN = 512;
const SIZE_MAX = 256 * 2 ** 15;
const FRAME_MS = 33;
const PULSE_MS = 2200;
const PULSES = 4;
/** A device that has been silent for so long fades. */
const STALE_MS = 60_000;
const HIT_PIXELS = 15;
/** Where the map begins before any device is known. */
const HOME = { lon: 5.5, lat: 46.2, size: 256 * 2 ** 5.4 };

/** Makes the map in `element`. `only`: this device alone, without card. Returns `{destroy, select}`. */
export function worldMap(element, { only = null, onOpen = () => {} } = {}) {
  const base = h("canvas", { "aria-hidden": "true" });
  const over = h("canvas", {
    class: "over", tabindex: "0", role: "application", "aria-roledescription": "map",
    "aria-label": only ? `Map of ${only}` : "Map of devices. Arrows move, plus and minus zoom, n and p choose a device, Enter opens it, 0 shows all.",
  });
  const tip = h("div", { class: "map-tip", hidden: true });
  const info = h("div", { class: "map-info", hidden: true });
  const scale = h("div", { class: "map-scale", hidden: true });
  const card = h("div", { class: "map-card", hidden: true });
  const trailButton = h("button", { type: "button", "aria-pressed": "true", title: "Trails", "aria-label": "Trails", onclick: () => { showTrails = !showTrails; trailButton.setAttribute("aria-pressed", showTrails); wake(); } }, icon("trail"));
  const labelButton = h("button", { type: "button", "aria-pressed": "false", title: "Names", "aria-label": "Names", onclick: () => { showLabels = !showLabels; labelButton.setAttribute("aria-pressed", showLabels); wake(); } }, icon("label"));
  const tools = h("div", { class: "map-tools" },
    h("div", null,
      h("button", { type: "button", title: "Zoom in", "aria-label": "Zoom in", onclick: () => zoomTo(2) }, icon("plus")),
      h("button", { type: "button", title: "Zoom out", "aria-label": "Zoom out", onclick: () => zoomTo(0.5) }, icon("minus")),
      h("button", { type: "button", title: "Show all", "aria-label": "Show all", onclick: () => fit(true) }, icon("fit"))),
    !only && h("div", null, trailButton, labelButton));
  const root = h("div", { class: only ? "map mini" : "map" }, base, over, info, scale, tools, tip, card);
  element.append(root);

  const view = { x: mercatorX(HOME.lon), y: mercatorY(HOME.lat), size: HOME.size, width: 0, height: 0 };
  const shown = new Map();
  const pulses = new Map();
  let dpr = 1, data = null, frame = 0, last = 0, baseDirty = true, flight = null;
  let touched = false, fitted = false, showTrails = true, showLabels = false;
  let selected = only, hovered = null, highest = 0, cardParts = null;

  outlines().then((found) => { data = found; redraw(); }, (error) => console.warn(error.message));

  // Measures

  function resize() {
    const { clientWidth: width, clientHeight: height } = root;
    if (width === 0 || height === 0) return;
    dpr = Math.min(2, devicePixelRatio || 1);
    Object.assign(view, { width, height });
    for (const canvas of [base, over]) {
      canvas.width = Math.round(width * dpr);
      canvas.height = Math.round(height * dpr);
    }
    if (!touched && fitted) fit(false);
    redraw();
  }
  const observer = new ResizeObserver(resize);
  observer.observe(root);

  function redraw() {
    baseDirty = true;
    wake();
  }

  function wake() {
    if (!frame) frame = requestAnimationFrame(draw);
  }

  // View

  function clamp() {
    view.size = Math.max(SIZE_MIN, Math.min(SIZE_MAX, view.size));
    view.x = Math.max(0, Math.min(1, view.x));
    view.y = Math.max(0.02, Math.min(0.85, view.y));
  }

  /** Zooms so that the point at these pixels stays where it is. */
  function zoomAt(px, py, factor) {
    const before = view.size;
    const x = view.x + (px - view.width / 2) / before, y = view.y + (py - view.height / 2) / before;
    view.size *= factor;
    clamp();
    view.x = x - (px - view.width / 2) / view.size;
    view.y = y - (py - view.height / 2) / view.size;
    clamp();
    redraw();
  }

  function zoomTo(factor) {
    touched = true;
    fly({ x: view.x, y: view.y, size: view.size * factor });
  }

  function fly(to) {
    if (!theme.mayMove()) {
      Object.assign(view, to);
      clamp();
      redraw();
      return;
    }
    flight = { from: { x: view.x, y: view.y, size: view.size }, to, begin: performance.now() };
    wake();
  }

  function stepFlight(now) {
    if (!flight) return;
    const share = Math.min(1, (now - flight.begin) / 380);
    const eased = 1 - (1 - share) ** 3;
    const { from, to } = flight;
    view.size = from.size * (to.size / from.size) ** eased;
    view.x = from.x + (to.x - from.x) * eased;
    view.y = from.y + (to.y - from.y) * eased;
    clamp();
    baseDirty = true;
    if (share === 1) flight = null;
  }

  const listed = () => (only ? [store.places.get(only)].filter(Boolean) : [...store.places.values()]);

  /** Shows the bulk of the devices. */
  function fit(animated) {
    const places = listed();
    if (places.length === 0 || view.width === 0) return;
    const points = only ? places[0].trail.map(([lon, lat]) => [lon, lat]) : places.map((place) => [place.lon, place.lat]);
    const cut = points.length > 20 ? Math.floor(points.length * 0.02) : 0;
    const range = (values) => {
      values.sort((a, b) => a - b);
      return [values[cut], values[values.length - 1 - cut]];
    };
    const [west, east] = range(points.map(([lon]) => mercatorX(lon)));
    const [north, south] = range(points.map(([, lat]) => mercatorY(lat)));
    const room = only ? 0.7 : 0.86;
    const size = Math.min((view.width * room) / Math.max(east - west, 1e-9), (view.height * room) / Math.max(south - north, 1e-9), 256 * 2 ** (only ? 8 : 10));
    const to = { x: (west + east) / 2, y: (north + south) / 2, size };
    if (animated) fly(to);
    else {
      Object.assign(view, to);
      clamp();
      redraw();
    }
  }

  // Devices

  function take() {
    const now = performance.now();
    for (const place of listed()) {
      const x = mercatorX(place.lon), y = mercatorY(place.lat);
      const known = shown.get(place.device);
      if (typeof place.altitude === "number" && place.altitude > highest) highest = place.altitude;
      if (!known) {
        shown.set(place.device, { fromX: x, fromY: y, x, y, toX: x, toY: y, begin: now, span: 1, place, heading: place.heading });
      } else if (known.toX !== x || known.toY !== y) {
        const span = theme.mayMove() ? place.every : 1;
        Object.assign(known, { fromX: known.x, fromY: known.y, toX: x, toY: y, begin: now, span, place });
      } else {
        known.place = place;
      }
    }
    if (!only) for (const device of shown.keys()) if (!store.places.has(device)) shown.delete(device);
    if (!fitted && shown.size > 0 && view.width > 0) {
      fitted = true;
      if (!touched) fit(false);
    }
    legend();
    updateCard();
    setText(info, `${count(shown.size)} on the map`);
    info.hidden = Boolean(only) || shown.size === 0;
    wake();
  }

  /** The altitude that has the last colour: metres up to 14,000, else feet. */
  const ceiling = () => (highest > 14_000 ? 45_000 : highest > 2_000 ? 13_000 : Math.max(100, highest));
  const shareOf = (place) => (typeof place.altitude === "number" ? place.altitude / ceiling() : 0.5);
  const isPlane = (place) => typeof place.altitude === "number" && typeof place.heading === "number";
  const colorOf = (place) => (typeof place.altitude === "number" ? altitudeColor(shareOf(place)) : theme.color("accent"));

  let legendOf = 0;
  function legend() {
    if (only || highest === 0) return;
    const top = ceiling();
    if (legendOf === top) return;
    legendOf = top;
    const strip = h("canvas", { width: "148", height: "1", "aria-hidden": "true" });
    paintStrip(strip);
    fill(scale, strip, h("div", null, h("span", null, "0"), h("span", null, "altitude"), h("span", null, count(top))));
    scale.hidden = false;
  }
  function paintStrip(strip) {
    const context = strip.getContext("2d");
    for (let x = 0; x < strip.width; x++) {
      context.fillStyle = altitudeColor(x / strip.width);
      context.fillRect(x, 0, 1, 1);
    }
  }

  function trail(context, item, isChosen) {
    const { trail: points } = item.place;
    if (points.length < 2) return;
    context.beginPath();
    const last = points.length - 1;
    points.forEach(([lon, lat], i) => {
      // The newest point is where the symbol glides to: the line ends at the symbol.
      const x = i === last ? item.x : mercatorX(lon), y = i === last ? item.y : mercatorY(lat);
      if (i === 0) context.moveTo(screenX(view, x), screenY(view, y));
      else context.lineTo(screenX(view, x), screenY(view, y));
    });
    context.strokeStyle = colorOf(item.place);
    context.globalAlpha = isChosen ? 0.95 : 0.3;
    context.lineWidth = isChosen ? 2.2 : 1.2;
    context.stroke();
    context.globalAlpha = 1;
  }

  function symbol(context, item, now) {
    const { place } = item;
    const x = screenX(view, item.x), y = screenY(view, item.y);
    if (x < -30 || y < -30 || x > view.width + 30 || y > view.height + 30) return false;
    const isChosen = place.device === selected;
    const size = (isChosen ? 13 : view.size > 20000 ? 10.5 : view.size > 6000 ? 8.5 : 6.5) * (only ? 1.1 : 1);
    if (isChosen && !only) {
      context.beginPath();
      context.arc(x, y, 20, 0, 7);
      context.fillStyle = theme.faded("accent", 0.16);
      context.fill();
      context.strokeStyle = theme.color("accent");
      context.lineWidth = 1.5;
      context.stroke();
    }
    drawSymbol(context, x, y, {
      heading: place.heading, isPlane: isPlane(place), color: colorOf(place), size,
      alpha: now - place.seen > STALE_MS ? 0.35 : 1, outline: theme.color("map-halo"),
    });
    return true;
  }

  function labelOf(context, item) {
    const x = screenX(view, item.x) + 12, y = screenY(view, item.y);
    const text = item.place.label || item.place.device;
    context.font = "600 11px ui-sans-serif, system-ui, sans-serif";
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.strokeStyle = theme.color("map-halo");
    context.strokeText(text, x, y);
    context.fillStyle = theme.color("text");
    context.fillText(text, x, y);
  }

  function draw(now) {
    frame = 0;
    if (document.hidden || view.width === 0) return;
    if (now - last < FRAME_MS && !baseDirty) return wake();
    last = now;
    stepFlight(now);
    if (baseDirty) {
      baseDirty = false;
      drawBase(base.getContext("2d"), view, dpr, data);
    }
    const context = over.getContext("2d");
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, view.width, view.height);
    let moving = Boolean(flight);
    for (const item of shown.values()) {
      const share = Math.min(1, (now - item.begin) / item.span);
      item.x = item.fromX + (item.toX - item.fromX) * share;
      item.y = item.fromY + (item.toY - item.fromY) * share;
      if (share < 1) moving = true;
    }
    if (showTrails) for (const item of shown.values()) if (item.place.device !== selected) trail(context, item, false);
    const chosen = shown.get(selected);
    if (chosen) trail(context, chosen, true);
    moving = drawPulses(context, now) || moving;
    const visible = [];
    for (const item of shown.values()) if (item !== chosen && symbol(context, item, now)) visible.push(item);
    if (chosen) symbol(context, chosen, now);
    if (showLabels || (visible.length <= 14 && view.size > 9000 && !only)) visible.slice(0, 150).forEach((item) => labelOf(context, item));
    if (chosen && !only) labelOf(context, { ...chosen, x: chosen.x + 10 / view.size });
    if (hovered) placeTip();
    if (moving) wake();
  }

  function drawPulses(context, now) {
    for (const [device, pulse] of pulses) {
      const age = now - pulse.begin, item = shown.get(device);
      if (!item || age > PULSE_MS * PULSES) {
        pulses.delete(device);
        continue;
      }
      const share = theme.mayMove() ? (age % PULSE_MS) / PULSE_MS : 0.3;
      drawPulse(context, screenX(view, item.x), screenY(view, item.y), share, pulse.color);
    }
    return pulses.size > 0;
  }

  // Choosing

  function at(px, py) {
    let found = null, distance = HIT_PIXELS ** 2;
    for (const item of shown.values()) {
      const d = (screenX(view, item.x) - px) ** 2 + (screenY(view, item.y) - py) ** 2;
      if (d < distance) [found, distance] = [item, d];
    }
    return found;
  }

  function placeTip() {
    const x = screenX(view, hovered.x) + 16, y = screenY(view, hovered.y) + 12;
    tip.style.transform = `translate(${Math.min(x, view.width - tip.offsetWidth - 6)}px, ${Math.min(y, view.height - tip.offsetHeight - 6)}px)`;
  }

  function hover(item) {
    if (only || hovered === item) return;
    hovered = item;
    over.classList.toggle("hit", Boolean(item));
    tip.hidden = !item || item.place.device === selected;
    if (!item) return;
    const { place } = item;
    const parts = [typeof place.altitude === "number" && `${count(place.altitude)} alt`, typeof place.speed === "number" && `${value(place.speed)} speed`].filter(Boolean);
    fill(tip, h("b", null, place.label || place.device), parts.length > 0 && ` · ${parts.join(" · ")}`);
    placeTip();
  }

  /** Chooses a device, or none. */
  function select(device, centre = false) {
    if (only) return;
    selected = device;
    tip.hidden = true;
    cardParts?.line.destroy();
    cardParts = null;
    card.hidden = !device;
    const item = shown.get(device);
    if (item) {
      makeCard(item.place);
      if (centre) fly({ x: item.toX, y: item.toY, size: Math.max(view.size, 256 * 2 ** 6.5) });
    }
    wake();
  }

  function makeCard(place) {
    const values = { altitude: h("dd"), speed: h("dd"), heading: h("dd"), seen: h("dd") };
    const needle = icon("plane");
    needle.setAttribute("class", "icon needle");
    const plot = h("div", { class: "spark" });
    fill(card,
      h("header", null, needle, h("div", null, h("b", null, place.label || place.device), h("span", null, place.device)),
        h("button", { type: "button", class: "quiet square", "aria-label": "Close", onclick: () => select(null) }, icon("close"))),
      h("dl", null, [["Altitude", "altitude"], ["Speed", "speed"], ["Heading", "heading"], ["Heard", "seen"]]
        .map(([text, name]) => h("div", null, h("dt", null, text), values[name]))),
      plot,
      h("a", { href: `#/devices/${encodeURIComponent(place.device)}` }, "Open device", icon("next", "small")));
    const line = spark(plot, () => {
      const rows = (store.places.get(place.device)?.trail ?? []).filter(([, , altitude]) => typeof altitude === "number");
      return [rows.map(([, , , time]) => time), rows.map(([, , altitude]) => altitude)];
    });
    plot.hidden = typeof place.altitude !== "number";
    cardParts = { device: place.device, values, needle, line };
    updateCard();
  }

  function updateCard() {
    const place = cardParts && store.places.get(cardParts.device);
    if (!place) return;
    const { values, needle, line } = cardParts;
    const number = (n) => (typeof n === "number" ? value(n) : "–");
    setText(values.altitude, typeof place.altitude === "number" ? count(place.altitude) : "–");
    setText(values.speed, number(place.speed));
    setText(values.heading, typeof place.heading === "number" ? `${Math.round(place.heading)}°` : "–");
    setText(values.seen, ago(place.at, Date.now() + store.skew));
    needle.style.transform = `rotate(${place.heading ?? 0}deg)`;
    line.update();
  }

  /** The next device in the order of names. */
  function step(by) {
    const names = [...shown.keys()].sort();
    if (names.length === 0) return;
    const from = names.indexOf(selected);
    select(names[(from + by + names.length) % names.length], true);
  }

  // Pointer and keyboard

  const pointers = new Map();
  let movedPixels = 0, pinch = 0;
  const local = (event) => {
    const box = over.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  over.addEventListener("pointerdown", (event) => {
    over.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, local(event));
    movedPixels = 0;
    pinch = 0;
    flight = null;
  });
  over.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    const before = pointers.get(event.pointerId);
    if (!before) return hover(at(x, y));
    pointers.set(event.pointerId, [x, y]);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const distance = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (pinch > 0) zoomAt((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, distance / pinch);
      pinch = distance;
      movedPixels = 99;
      touched = true;
      return undefined;
    }
    movedPixels += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    if (movedPixels < 4) return undefined;
    touched = true;
    over.classList.add("dragging");
    view.x -= (x - before[0]) / view.size;
    view.y -= (y - before[1]) / view.size;
    clamp();
    redraw();
    return undefined;
  });
  const release = (event) => {
    if (pointers.delete(event.pointerId) && event.type === "pointerup" && movedPixels < 4) {
      const item = at(...local(event));
      if (only && item) onOpen(item.place.device);
      select(item?.place.device ?? null);
    }
    pinch = 0;
    over.classList.remove("dragging");
  };
  over.addEventListener("pointerup", release);
  over.addEventListener("pointercancel", release);
  over.addEventListener("pointerleave", () => hover(null));
  over.addEventListener("dblclick", (event) => { touched = true; zoomAt(...local(event), 2); });
  over.addEventListener("wheel", (event) => {
    event.preventDefault();
    touched = true;
    flight = null;
    zoomAt(...local(event), 2 ** (-event.deltaY / (event.deltaMode === 1 ? 12 : 280)));
  }, { passive: false });
  const pan = (dx, dy) => {
    touched = true;
    fly({ x: view.x + dx / view.size, y: view.y + dy / view.size, size: view.size });
  };
  const KEYS = {
    ArrowLeft: () => pan(-120, 0), ArrowRight: () => pan(120, 0), ArrowUp: () => pan(0, -120), ArrowDown: () => pan(0, 120),
    "+": () => zoomTo(2), "=": () => zoomTo(2), "-": () => zoomTo(0.5), 0: () => { touched = false; fit(true); },
    n: () => step(1), p: () => step(-1), Escape: () => select(null),
    Enter: () => { if (selected) location.hash = `#/devices/${encodeURIComponent(selected)}`; },
  };
  over.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    KEYS[event.key]();
  });

  const off = [
    store.on("places", take),
    store.on("alarm", (alarm) => {
      pulses.set(alarm.device, { begin: performance.now(), color: alarm.level === "critical" ? "red" : alarm.level === "info" ? "blue" : "amber" });
      wake();
    }),
    theme.onChange(() => {
      legendOf = 0;
      legend();
      redraw();
    }),
  ];
  const onVisible = () => { if (!document.hidden) redraw(); };
  document.addEventListener("visibilitychange", onVisible);
  const clock = setInterval(updateCard, 1000);
  take();

  return {
    select: (device) => select(device, true),
    destroy() {
      off.forEach((stop) => stop());
      document.removeEventListener("visibilitychange", onVisible);
      clearInterval(clock);
      observer.disconnect();
      cancelAnimationFrame(frame);
      frame = -1;
      cardParts?.line.destroy();
      root.remove();
    },
  };
}
