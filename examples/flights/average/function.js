// Moving averages over all aircraft of a partition, as a WebAssembly component.
//
// The last WINDOW messages are kept in `state`, which is stored together with the batch's checkpoint: a batch
// that comes again finds the window as it was, so no message counts twice. Each batch sends the averages to the
// real-time hub `flights` (target `averages`), and every second hour of the recording a notice to the console.
import { log } from 'fleetline:functions/logging@1.0.0';
import { get as setting } from 'fleetline:functions/settings@1.0.0';
import { get, set } from 'fleetline:functions/state@1.0.0';

const WINDOW_DEFAULT = 200;
// A value of the state has at most 64 KiB.
const WINDOW_MAX = 2000;
const FIELDS = ['altitude', 'groundspeed', 'vertical_rate'];
const KEY = 'window';
const NOTICE_EVERY_MS = 2 * 3600 * 1000;
// Feet a minute: slower than this is level flight.
const LEVEL = 300;

const text = new TextDecoder();

export function handleBatch(batch) {
  if (batch.trigger.tag !== 'events') {
    throw `averages are made of events, not of ${batch.trigger.tag}`;
  }
  const window = load();
  let last;
  let unreadable = 0;
  for (const event of batch.trigger.val) {
    // The hub's own events are in the stream, too.
    if (event.systemProperties.some(([name, value]) => name === 'iothub-message-source' && value !== 'Telemetry')) {
      continue;
    }
    const message = read(event);
    if (message === undefined) {
      unreadable += 1;
      continue;
    }
    last = message.timestamp;
    window.samples.push(FIELDS.map((name) => message[name]));
  }
  if (unreadable > 0) {
    log('warning', `${unreadable} messages of partition ${batch.partition} are not those of aircraft`);
  }
  if (last === undefined) {
    return [];
  }
  window.samples = window.samples.slice(-size());
  const averages = summary(window.samples, batch.partition, last);
  const effects = [realtime('flights', 'averages', averages)];
  // A recording that begins anew goes back in time.
  if (Math.abs(last - window.noticed) >= NOTICE_EVERY_MS) {
    // The very first messages are no average yet.
    if (window.noticed !== 0) {
      effects.push(realtime('console', 'alarm', notice(averages)));
    }
    window.noticed = last;
  }
  store(window);
  return effects;
}

function size() {
  const asked = Number(setting('WINDOW') ?? WINDOW_DEFAULT);
  return Number.isInteger(asked) && asked > 0 ? Math.min(asked, WINDOW_MAX) : WINDOW_DEFAULT;
}

function read(event) {
  try {
    const message = JSON.parse(text.decode(event.body));
    const isWhole = [...FIELDS, 'timestamp'].every((name) => Number.isFinite(message[name]));
    return isWhole ? message : undefined;
  } catch {
    return undefined;
  }
}

function summary(samples, partition, at) {
  const of = (field) => samples.map((sample) => sample[field]);
  const mean = (values) => Math.round(values.reduce((sum, value) => sum + value, 0) / values.length);
  const rates = of(2);
  return {
    partition,
    at,
    messages: samples.length,
    altitude: { mean: mean(of(0)), max: Math.max(...of(0)) },
    groundspeed: { mean: mean(of(1)), max: Math.round(Math.max(...of(1))) },
    climbing: rates.filter((rate) => rate > LEVEL).length / rates.length,
    sinking: rates.filter((rate) => rate < -LEVEL).length / rates.length,
  };
}

function notice(averages) {
  const percent = (share) => Math.round(share * 100);
  return {
    device: '',
    level: 'info',
    text:
      `average of ${averages.messages} messages in partition ${averages.partition}: ${averages.altitude.mean} ft, ` +
      `${averages.groundspeed.mean} kt, ${percent(averages.climbing)}% climb, ${percent(averages.sinking)}% sink`,
    value: averages.altitude.mean,
    at: averages.at,
  };
}

function realtime(hub, target, argument) {
  return { tag: 'realtime', val: { hub, target, arguments: JSON.stringify([argument]), to: { tag: 'all' } } };
}

// The window in bytes: the time of the last notice, then the fields of each message, oldest first; all of
// them eight bytes.
function load() {
  const bytes = get(KEY);
  const window = { noticed: 0, samples: [] };
  if (bytes === undefined || bytes.byteLength < 8) {
    return window;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  window.noticed = view.getFloat64(0);
  for (let at = 8; at + FIELDS.length * 8 <= view.byteLength; at += FIELDS.length * 8) {
    window.samples.push(FIELDS.map((_, field) => view.getFloat64(at + field * 8)));
  }
  return window;
}

function store({ noticed, samples }) {
  const view = new DataView(new ArrayBuffer(8 + samples.length * FIELDS.length * 8));
  view.setFloat64(0, noticed);
  samples.flat().forEach((value, index) => view.setFloat64(8 + index * 8, value));
  set(KEY, new Uint8Array(view.buffer));
}
