// A node as the page sees it: assets, the API, and a SignalR hub (JSON protocol over WebSocket). For tests only.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "./packages.mjs";
import { World } from "./world.mjs";

const ASSETS = fileURLToPath(new URL("../../assets/", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml", ".txt": "text/plain" };
const RECORD_END = "\x1e";

export const KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
export const CONNECTION_STRING = `HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey=${KEY}`;

/** The page's policy, as `src/reply.rs` has it: read from there, so that the test can't fall behind. */
function contentPolicy() {
  const source = readFileSync(fileURLToPath(new URL("../../src/reply.rs", import.meta.url)), "utf8");
  const text = /"(default-src 'none';[\s\S]*?)"\s*\n\s*\)/.exec(source)[1];
  return text.replaceAll(/\\\n\s*/g, "").replace("{more}", "");
}

/** A token as the command line makes it. */
export function token(ttl = 3600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256" })}.${part({ aud: "console", sub: "service", exp: Math.floor(Date.now() / 1000) + ttl })}`;
  return `${signed}.${createHmac("sha256", Buffer.from(KEY, "base64")).update(signed).digest("base64url")}`;
}

function isGood(header) {
  const [head, claims, signature] = (header ?? "").replace(/^Bearer /, "").split(".");
  if (!signature) return false;
  const expected = createHmac("sha256", Buffer.from(KEY, "base64")).update(`${head}.${claims}`).digest();
  const given = Buffer.from(signature, "base64url");
  return given.length === expected.length && timingSafeEqual(given, expected) && JSON.parse(Buffer.from(claims, "base64url")).aud === "console";
}

/** Starts the mock; `options.live` false: no realtime tier. */
export async function start(options = {}) {
  const world = new World(options.planes);
  const state = { world, live: options.live ?? true, patches: [], sockets: new Set(), failures: [] };
  const policy = contentPolicy();
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://x");
    const send = (status, body, type = "application/json") => {
      response.writeHead(status, { "content-type": type, "content-security-policy": policy, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer" });
      response.end(typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body));
    };
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      try {
        answer(state, request, url, Buffer.concat(chunks).toString(), send);
      } catch (error) {
        state.failures.push(error);
        send(500, { error: { status: 500, text: error.message } });
      }
    });
  });
  const sockets = new WebSocketServer({ noServer: true });
  server.on("upgrade", (request, socket, head) => {
    if (new URL(request.url, "http://x").searchParams.get("access_token") !== "live-token") return socket.destroy();
    sockets.handleUpgrade(request, socket, head, (ws) => serveLive(state, ws));
  });
  await new Promise((done) => server.listen(options.port ?? 0, "127.0.0.1", done));
  const feed = setInterval(() => feedAll(state), 500);
  return {
    state, world, base: `http://127.0.0.1:${server.address().port}`,
    send: (target, ...args) => publish(state, target, ...args),
    dropLive: () => state.sockets.forEach((ws) => ws.terminate()),
    stop: () => {
      clearInterval(feed);
      state.sockets.forEach((ws) => ws.terminate());
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}

function answer(state, request, url, body, send) {
  const { world } = state;
  const now = Date.now();
  if (url.pathname === "/live/negotiate") return send(200, { connectionId: "c", connectionToken: "t", negotiateVersion: 1, availableTransports: [{ transport: "WebSockets", transferFormats: ["Text", "Binary"] }] });
  if (!url.pathname.startsWith("/console/api/")) return asset(url.pathname, send);
  if (!isGood(request.headers.authorization)) return send(401, { error: { status: 401, text: "sign in" } });
  const [what, id, part] = url.pathname.slice("/console/api/".length).split("/").map(decodeURIComponent);
  const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
  switch ([what, id && "id", part].filter(Boolean).join("/")) {
    case "session": return send(200, { policy: "service", expires: Math.floor(now / 1000) + 3600, rights: ["serviceConnect"], devices: [], may: { status: true, devices: true, twins: true, change: true, telemetry: true, live: true } });
    case "status": return send(200, world.status(now));
    case "groups": return send(200, world.groups());
    case "functions": return send(200, world.functions(now));
    case "positions": return send(200, { rows: world.positions(now) });
    case "negotiate": return state.live ? send(200, { url: "/live/?hub=console", accessToken: "live-token" }) : send(404, { error: { status: 404, text: "this node has no realtime tier" } });
    case "devices": {
      const from = Number(url.searchParams.get("from") || 0), limit = number("limit", 50);
      const all = world.devices(url.searchParams.get("q") ?? "", now);
      return send(200, { devices: all.slice(from, from + limit), next: from + limit < all.length ? String(from + limit) : null });
    }
    case "devices/id": {
      const found = world.device(id, now);
      return found ? send(200, found) : send(404, { error: { status: 404, text: `${id} does not exist` } });
    }
    case "devices/id/telemetry": return send(200, world.telemetry(id, number("limit", 100), now));
    case "devices/id/twin": {
      const change = JSON.parse(body);
      state.patches.push(change);
      if (change.version !== world.version) return send(412, { error: { status: 412, text: "the twin is another one" } });
      for (const [name, value] of Object.entries(change.desired)) {
        if (value === null) delete world.desired[name];
        else world.desired[name] = value;
      }
      world.version += 1;
      return send(200, world.device(id, now).twin);
    }
    default: return send(404, { error: { status: 404, text: "this path does not exist" } });
  }
}

function asset(path, send) {
  const name = path === "/console/" ? "index.html" : normalize(path.replace(/^\/console\//, ""));
  try {
    return send(200, readFileSync(join(ASSETS, name)), TYPES[extname(name)] ?? "text/plain");
  } catch {
    return send(404, { error: { status: 404, text: "this path does not exist" } });
  }
}

function serveLive(state, ws) {
  let isOpen = false;
  ws.on("message", (data) => {
    if (isOpen) return;
    isOpen = true;
    ws.send("{}" + RECORD_END);
    state.sockets.add(ws);
  });
  const ping = setInterval(() => ws.send(JSON.stringify({ type: 6 }) + RECORD_END), 5000);
  ws.on("close", () => {
    clearInterval(ping);
    state.sockets.delete(ws);
  });
}

function publish(state, target, ...args) {
  for (const ws of state.sockets) ws.send(JSON.stringify({ type: 1, target, arguments: args }) + RECORD_END);
}

function feedAll(state) {
  const { world } = state;
  const now = Date.now();
  world.move(12);
  publish(state, "tick", world.tick(now, 0.5));
  publish(state, "positions", { node: 1, at: now, rows: world.positions(now) });
  publish(state, "records", { node: 1, rows: world.sample(now) });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { base } = await start({ port: Number(process.argv[2] ?? 8099) });
  console.log(`${base}/console/#token=${token()}`);
}
