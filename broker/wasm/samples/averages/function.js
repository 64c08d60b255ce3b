// Moving averages over the telemetry of each device.
//
// Each event is a JSON document with `altitude` and `groundSpeed`. For each device the function keeps
// the last WINDOW values in `state`, and sends their mean and greatest to the clients of the real-time
// hub: one message for each device of a batch. Events that aren't such documents are counted and
// logged, not refused: one broken device must not stop its partition.
import { log } from 'fleetline:functions/logging@1.0.0';
import { get as setting } from 'fleetline:functions/settings@1.0.0';
import { delete as forget, get, keys, set } from 'fleetline:functions/state@1.0.0';

const WINDOW_DEFAULT = 20;
// State has 64 keys. Of more devices in a partition, those seen longest ago make room.
const DEVICES_MAX = 64;
const HEAD_BYTES = 8;
const SAMPLE_BYTES = 16;

const text = new TextDecoder();

export function handleBatch(batch) {
  if (batch.trigger.tag !== 'events') {
    throw `averages are made of events, not of ${batch.trigger.tag}`;
  }
  const window = Number(setting('AVERAGES_WINDOW') ?? WINDOW_DEFAULT);
  const touched = new Map();
  let unreadable = 0;
  for (const event of batch.trigger.val) {
    const sample = read(event);
    if (sample === undefined) {
      unreadable += 1;
      continue;
    }
    const samples = touched.get(event.deviceId)?.samples ?? load(event.deviceId);
    samples.push(sample);
    if (samples.length > window) {
      samples.splice(0, samples.length - window);
    }
    touched.set(event.deviceId, { samples, sequence: event.sequence });
  }
  if (unreadable > 0) {
    log('warning', `${unreadable} events of partition ${batch.partition} have no altitude and groundSpeed`);
  }
  const effects = [];
  for (const [deviceId, { samples, sequence }] of touched) {
    store(deviceId, samples, sequence);
    effects.push(message(deviceId, samples));
  }
  return effects;
}

function read(event) {
  if (event.deviceId === undefined) {
    return undefined;
  }
  try {
    const { altitude, groundSpeed } = JSON.parse(text.decode(event.body));
    const isSample = Number.isFinite(altitude) && Number.isFinite(groundSpeed);
    return isSample ? { altitude, groundSpeed } : undefined;
  } catch {
    return undefined;
  }
}

function message(deviceId, samples) {
  const of = (name) => samples.map((sample) => sample[name]);
  const averages = {
    deviceId,
    samples: samples.length,
    altitude: { mean: mean(of('altitude')), max: Math.max(...of('altitude')) },
    groundSpeed: { mean: mean(of('groundSpeed')), max: Math.max(...of('groundSpeed')) },
  };
  return {
    tag: 'realtime',
    val: { target: 'averages', arguments: JSON.stringify([averages]), to: { tag: 'all' } },
  };
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// State of a device: the sequence of its last event, then altitude and ground speed of each sample, oldest
// first, all of them eight bytes.
function load(deviceId) {
  const view = viewOf(get(deviceId));
  const samples = [];
  for (let at = HEAD_BYTES; view !== undefined && at < view.byteLength; at += SAMPLE_BYTES) {
    samples.push({ altitude: view.getFloat64(at), groundSpeed: view.getFloat64(at + 8) });
  }
  return samples;
}

function store(deviceId, samples, sequence) {
  const bytes = new Uint8Array(HEAD_BYTES + samples.length * SAMPLE_BYTES);
  const view = viewOf(bytes);
  view.setBigUint64(0, sequence);
  samples.forEach((sample, index) => {
    view.setFloat64(HEAD_BYTES + index * SAMPLE_BYTES, sample.altitude);
    view.setFloat64(HEAD_BYTES + index * SAMPLE_BYTES + 8, sample.groundSpeed);
  });
  makeRoom(deviceId);
  set(deviceId, bytes);
}

function makeRoom(deviceId) {
  const known = keys();
  if (known.length < DEVICES_MAX || known.includes(deviceId)) {
    return;
  }
  const seen = known.map((key) => ({ key, sequence: viewOf(get(key)).getBigUint64(0) }));
  forget(seen.reduce((oldest, other) => (other.sequence < oldest.sequence ? other : oldest)).key);
}

function viewOf(bytes) {
  return bytes && new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
