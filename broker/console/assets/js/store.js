// What the page knows, live. Filled by live.js, read by the views.
//
// Everything is bounded: series by time, trails by points, feeds by rows, devices by number.

/** Points of each series: 15 minutes at two a second. */
const POINTS_MAX = 1800;
const ALARMS_MAX = 100;
const RECORDS_MAX = 80;
const TRAIL_MAX = 120;
const PLACES_MAX = 5000;
/** A node that has said nothing for so long counts as silent. */
const SILENT_MS = 4000;

const listeners = new Map();

/** Calls `callback` for each event of this kind, until the returned function is called. */
export function on(kind, callback) {
  if (!listeners.has(kind)) listeners.set(kind, new Set());
  listeners.get(kind).add(callback);
  return () => listeners.get(kind).delete(callback);
}

function emit(kind, value) {
  for (const callback of listeners.get(kind) ?? []) callback(value);
}

/** What the token allows, from the node. */
export let session = null;
/** The last status of the cluster. */
export let status = null;
/** `connecting`, `live`, `polling` or `lost`. */
export let link = "connecting";
/** Series by name, and their times in seconds. */
export const series = { time: [], in: [], bytesIn: [], out: [], bytesOut: [], connections: [] };
/** Rates now, added up over all nodes. */
export let rates = { in: null, bytesIn: null, out: null, bytesOut: null, connections: null };
/** By partition: end, start, bytes, leader, term, replicationLag, applyLag, rate. */
export const heads = new Map();
/** By device: lat, lon, heading, altitude, speed, at, label, trail, seen (when, on the page's clock), every (ms between words). */
export const places = new Map();
export const alarms = [];
export let alarmsUnseen = 0;
export const records = [];
/** How many milliseconds the node's clock is ahead of ours. */
export let skew = 0;

const ticks = new Map();

export function setSession(value) {
  session = value;
  emit("session", value);
}

export function setLink(value) {
  if (link === value) return;
  link = value;
  emit("link", value);
}

export function setStatus(value) {
  skew = value.now - Date.now();
  const before = status;
  status = value;
  for (const row of value.partitions) {
    if (row.info) setHead(row.partition, { ...row.info, leader: row.leader }, value.now);
  }
  if (link !== "live" && before) {
    const seconds = (value.now - before.now) / 1000;
    const ended = new Map(before.partitions.map((row) => [row.partition, row.info?.end]));
    let came = 0;
    for (const row of value.partitions) came += Math.max(0, (row.info?.end ?? 0) - (ended.get(row.partition) ?? row.info?.end ?? 0));
    if (seconds > 0.2) setRates({ in: came / seconds, bytesIn: null, out: null, bytesOut: null, connections: null });
  }
  emit("status", value);
}

function setHead(partition, info, at) {
  const before = heads.get(partition);
  let rate = before?.rate ?? 0;
  let since = before?.since ?? at;
  let from = before?.from ?? info.end;
  // Over two seconds or so: single ticks jump.
  if (at - since >= 2000) {
    rate = Math.max(0, info.end - from) / ((at - since) / 1000);
    [since, from] = [at, info.end];
  }
  heads.set(partition, { ...before, ...info, rate, since, from });
}

function setRates(value) {
  rates = value;
  const now = Date.now() / 1000;
  series.time.push(now);
  for (const name of ["in", "bytesIn", "out", "bytesOut", "connections"]) series[name].push(value[name] ?? null);
  if (series.time.length > POINTS_MAX) for (const list of Object.values(series)) list.splice(0, list.length - POINTS_MAX);
  emit("rates", value);
}

/** A node's tick: the rates of all nodes that have spoken lately add up. */
export function takeTick(tick) {
  const now = Date.now();
  const isFirst = !ticks.has(tick.node);
  ticks.set(tick.node, { ...tick, received: now });
  for (const [partition, end, start, bytes, leader, term, replicationLag, applyLag] of tick.partitions ?? []) {
    setHead(partition, { end, start, bytes, leader, term, replicationLag, applyLag }, tick.at);
  }
  const lowest = Math.min(...ticks.keys());
  for (const [node, last] of ticks) if (now - last.received > SILENT_MS) ticks.delete(node);
  // One point a round, by whichever node speaks first; others are in with their last word.
  if (tick.node !== lowest && !isFirst && ticks.has(lowest)) return;
  const sum = (name) => {
    let total = null;
    for (const last of ticks.values()) if (last[name] !== null && last[name] !== undefined) total = (total ?? 0) + last[name];
    return total;
  };
  setRates({ in: sum("in"), bytesIn: sum("bytesIn"), out: sum("out"), bytesOut: sum("bytesOut"), connections: sum("connections") });
}

/** Rows of positions, as the node sends them. */
export function takePositions(rows) {
  for (const [device, lat, lon, heading, altitude, speed, at, label] of rows) {
    let place = places.get(device);
    if (place && place.at > at) continue;
    if (!place) {
      if (places.size >= PLACES_MAX) continue;
      place = { device, trail: [], every: 1000 };
      places.set(device, place);
    }
    const moved = place.lat !== lat || place.lon !== lon;
    // What comes from the node's memory may be old.
    const now = performance.now() - Math.max(0, Math.min(600_000, Date.now() + skew - at));
    if (place.seen) place.every = Math.min(8000, Math.max(300, place.every * 0.6 + (now - place.seen) * 0.4));
    Object.assign(place, { lat, lon, heading, altitude, speed, at, label, seen: now });
    if (moved) {
      place.trail.push([lon, lat, altitude, at]);
      if (place.trail.length > TRAIL_MAX) place.trail.shift();
    }
  }
  emit("places", rows);
}

/** Forgets devices that have not been heard of for ten minutes. */
export function forgetPlaces() {
  const oldest = performance.now() - 600_000;
  for (const [device, place] of places) if (place.seen < oldest) places.delete(device);
}

/** Records, oldest first. */
export function takeRecords(rows) {
  records.push(...rows);
  if (records.length > RECORDS_MAX) records.splice(0, records.length - RECORDS_MAX);
  emit("records", rows);
}

/** An alarm of a function. Whatever comes is made into the shape that the views expect. */
export function takeAlarm(given) {
  if (!given || typeof given !== "object") return;
  const level = ["info", "warning", "critical"].includes(given.level) ? given.level : "warning";
  const alarm = {
    device: String(given.device ?? ""), text: String(given.text ?? ""), value: given.value, level,
    at: Number(given.at) || Date.now() + skew,
  };
  alarms.unshift(alarm);
  if (alarms.length > ALARMS_MAX) alarms.pop();
  alarmsUnseen += 1;
  emit("alarm", alarm);
}

export function seenAlarms() {
  if (alarmsUnseen === 0) return;
  alarmsUnseen = 0;
  emit("alarms-seen");
}
