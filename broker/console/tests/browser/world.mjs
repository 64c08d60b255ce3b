// A hub that only the test has: some nodes, partitions, aircraft around Switzerland, functions.

const NODES = [1, 2, 3];
const PARTITIONS = 12;
const AIRLINES = ["SWR", "EZS", "AFR", "DLH", "BAW", "RYR", "VLG", "EDW", "TAP", "KLM", "AUA", "LOT"];

/** The same numbers in each run. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** What the mock server tells of. */
export class World {
  constructor(planes = 140) {
    this.random = random(7);
    this.heads = Array.from({ length: PARTITIONS }, (_, i) => 48_000 + i * 3_113);
    this.planes = Array.from({ length: planes }, (_, i) => this.plane(i));
    this.desired = { intervalSeconds: 5, units: "metric", alarms: { lowAltitude: 900, enabled: true }, firmware: "2.4.1" };
    this.version = 7;
    this.history = new Map();
    this.calls = 18_220;
    for (let i = 0; i < 90; i++) this.move(2);
  }

  plane(i) {
    const nearToulouse = i % 4 === 0;
    const [lon, lat, spread] = nearToulouse ? [1.4, 43.7, 2.2] : [8, 46.8, 2.8];
    const number = Math.floor(this.random() * 8000) + 100;
    return {
      id: `icao-${(0x4b0000 + i * 977).toString(16)}`, callsign: `${AIRLINES[i % AIRLINES.length]}${number}`,
      lon: lon + (this.random() - 0.5) * 2 * spread, lat: lat + (this.random() - 0.5) * 1.5 * spread,
      heading: this.random() * 360, turn: (this.random() - 0.5) * 1.2, altitude: 600 + this.random() ** 0.6 * 11_400,
      climb: (this.random() - 0.5) * 8, speed: 90 + this.random() * 160, partition: i % PARTITIONS,
    };
  }

  /** Lets time pass. */
  move(seconds) {
    for (const plane of this.planes) {
      plane.heading = (plane.heading + plane.turn * seconds * this.random() + 360) % 360;
      const metres = plane.speed * seconds;
      plane.lat += (Math.cos((plane.heading * Math.PI) / 180) * metres) / 111_000;
      plane.lon += (Math.sin((plane.heading * Math.PI) / 180) * metres) / (111_000 * Math.cos((plane.lat * Math.PI) / 180));
      plane.altitude = Math.max(350, Math.min(12_600, plane.altitude + plane.climb * seconds));
      if (plane.altitude <= 350 || plane.altitude >= 12_600) plane.climb = -plane.climb;
      const list = this.history.get(plane.id) ?? [];
      list.push({ latitude: round(plane.lat, 5), longitude: round(plane.lon, 5), altitude: round(plane.altitude, 1), heading: round(plane.heading, 1), speed: round(plane.speed + Math.sin(plane.lat * 60) * 4, 1), verticalRate: round(plane.climb + Math.sin(plane.lon * 40), 2), callsign: plane.callsign, onGround: false });
      if (list.length > 120) list.shift();
      this.history.set(plane.id, list);
    }
    this.heads = this.heads.map((head, i) => head + Math.round((20 + i * 3) * seconds * (0.8 + this.random() * 0.4)));
    this.calls += Math.round(420 * seconds);
  }

  positions(now) {
    return this.planes.map((plane) => [plane.id, round(plane.lat, 5), round(plane.lon, 5), round(plane.heading, 1), round(plane.altitude, 1), round(plane.speed, 1), now, plane.callsign]);
  }

  tick(now, seconds) {
    const rate = 440 * (0.9 + 0.12 * Math.sin(now / 9000) + this.random() * 0.06);
    return {
      node: 1, at: now, seconds, in: rate, bytesIn: rate * 231, out: rate * 3.1, bytesOut: rate * 3.1 * 231, connections: this.planes.length + 6,
      partitions: this.heads.map((head, i) => [i, head, 0, head * 231, NODES[i % 3], 4 + (i % 2), i === 5 ? 3 : 0, 0]),
    };
  }

  status(now) {
    return {
      now, version: "0.1.0", cluster: "c-7f3a91", host: "hub.fleetline.local", node: 1, controlLeader: 2,
      nodes: NODES.map((node) => ({ node, client: `10.0.0.${node}:7443`, peer: `10.0.0.${node}:7444`, zone: `zone-${"abc"[node - 1]}`, draining: false, alive: node !== 3 || !this.nodeDown })),
      partitions: this.heads.map((end, i) => ({
        partition: i, leader: NODES[i % 3], replicas: [NODES[i % 3], NODES[(i + 1) % 3], NODES[(i + 2) % 3]],
        info: { term: 4 + (i % 2), voters: NODES, learners: [], start: 0, end, lastEnqueued: now - 400, bytes: end * 231, replicationLag: i === 5 ? 3 : 0, applyLag: 0, damaged: 0 },
      })),
      devices: { registered: this.planes.length + 21, connected: this.planes.length, disabled: 2, partitionsMissing: 0 },
      functions: true, live: { watchers: 1 },
    };
  }

  summary(plane, now) {
    return { id: plane.id, module: "", enabled: true, connected: true, connectionChanged: now - 3_600_000, lastActivity: now - 1200, auth: "shared key", model: "dtmi:fleetline:aircraft;1", edge: false };
  }

  devices(query, now) {
    const offline = Array.from({ length: 21 }, (_, i) => ({ ...this.summary({ id: `sensor-${String(i).padStart(3, "0")}` }, now), connected: false, enabled: i % 9 !== 4, lastActivity: i % 3 ? now - i * 7_000_000 : null, auth: "certificate", model: "" }));
    return [...this.planes.map((plane) => this.summary(plane, now)), ...offline].filter((one) => one.id.includes(query));
  }

  device(id, now) {
    const found = this.devices(id, now).find((one) => one.id === id);
    if (!found) return null;
    const stamp = new Date(now - 86_000_000).toISOString();
    const metadata = { $lastUpdated: stamp, firmware: { $lastUpdated: stamp }, alarms: { $lastUpdated: stamp } };
    return {
      identity: { ...found, statusReason: "", statusChanged: null, created: now - 86_400_000 * 12, generation: "638412345678", etag: 3, scope: "", managedBy: "", commands: 1, node: 2, subscriptions: ["$iothub/methods/POST/#", `devices/${id}/messages/devicebound/#`] },
      twin: {
        version: this.version, tags: { region: "alps", fleet: "demo", owner: { team: "ops", contact: null } },
        desired: { ...this.desired, $version: this.version, $metadata: metadata },
        reported: { intervalSeconds: 5, units: "metric", alarms: { lowAltitude: 900, enabled: true }, firmware: "2.3.9", battery: 0.82, $version: 40, $metadata: metadata },
      },
      modules: [], partition: 3, may: { change: true, telemetry: true },
    };
  }

  telemetry(id, limit, now) {
    const list = (this.history.get(id) ?? []).slice(-limit);
    const records = list.map((body, i) => ({ offset: 51_000 + i * 11, at: now - (list.length - i) * 2000, bytes: JSON.stringify(body).length, kind: "json", body, properties: { source: "adsb" }, system: { "content-type": "application/json", "iothub-connection-device-id": id } }));
    return { records: records.reverse(), partition: 3, scanned: { records: 12_288, bytes: 2_840_000 }, complete: records.length >= limit };
  }

  sample(now) {
    return this.planes.slice(0, 200).filter(() => this.random() < 0.05).slice(0, 8).map((plane) => ({ device: plane.id, partition: plane.partition, offset: this.heads[plane.partition], at: now, bytes: 180, text: JSON.stringify(this.history.get(plane.id).at(-1)), event: false }));
  }

  alarm(now) {
    const plane = this.planes[Math.floor(this.random() * this.planes.length)];
    const kinds = [["descends fast below 900 m", "critical", plane.altitude], ["squawks 7600", "warning", undefined], ["turned back over the alps", "info", undefined], ["two aircraft within 1.8 km", "critical", 1.8]];
    const [text, level, value] = kinds[Math.floor(this.random() * kinds.length)];
    return { device: plane.id, text, level, value, at: now };
  }

  functions(now) {
    const log = (level, text, ago) => ({ at: now - ago, level, text });
    return { functions: [
      { name: "low-altitude", app: "alarms", kind: "wasm", trigger: "event stream", state: "running", invocations: this.calls, failures: 0, durationMs: { mean: 0.42, p99: 1.9 }, lag: 12, logs: [log("info", "threshold is 900 m", 90_000), log("warning", "SWR1412 descends fast below 900 m (712 m)", 21_000), log("info", "batch of 64 in 0.4 ms", 1_000)] },
      { name: "separation", app: "alarms", kind: "python", trigger: "event stream", state: "running", invocations: Math.round(this.calls / 3), failures: 2, durationMs: { mean: 7.8, p99: 31 }, lag: 148, logs: [log("info", "grid of 512 cells", 60_000), log("error", "KeyError: 'altitude' (record 51,228)", 44_000), log("info", "checked 140 aircraft, 1 pair close", 2_000)] },
      { name: "welcome", app: "ops", kind: "node", trigger: "http", state: "running", invocations: 41, failures: 0, durationMs: { mean: 2.1, p99: 5.5 }, lag: null, logs: [] },
      { name: "nightly-report", app: "ops", kind: "python", trigger: "timer", state: "failed", invocations: 3, failures: 3, durationMs: { mean: 410, p99: 620 }, lag: null, error: "ModuleNotFoundError: No module named 'pandas'", logs: [log("error", "worker could not load nightly_report", 700_000)] },
    ] };
  }

  groups() {
    const group = (name, lag, members) => ({ group: name, lag, partitions: this.heads.map((end, i) => ({ partition: i, next: end - Math.round((lag / 78) * (i + 1)), end, lag: Math.round((lag / 78) * (i + 1)), epoch: 3 })), state: { generation: 5, members: Array.from({ length: members }, (_, i) => ({ name: `${name}-${i}`, partitions: [i] })) } });
    return { groups: [group("alarms", 12, 2), group("archive", 1_840, 3), group("dashboard", 0, 1)], more: false };
  }
}

const round = (value, places) => Math.round(value * 10 ** places) / 10 ** places;
