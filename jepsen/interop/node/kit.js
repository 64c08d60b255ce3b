// What every Node case uses: naming cases, waiting, and the runner's commands.
//
// A case is `test('name', async () => …, kind)`; a file ends with `main()`. The kinds are in
// `harness/hub.py`. `NODE_EXTRA_CA_CERTS` is set by the runner, so no case speaks of certificates
// of the hub.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');

// How long an answer may take before the case says that it is missing. A bound for hangs, not a promise.
const WAIT_MS = 30000;
const cases = new Map();

function test(name, run, kind = 'single') {
  assert(!cases.has(name), `two cases are named ${name}`);
  cases.set(name, { kind, run });
}

function fail(error) {
  console.error(error);
  const text = String((error && error.message) || error)
    .split(/\s+/)
    .join(' ')
    .slice(0, 400);
  console.log(`REASON ${(error && error.name) || 'Error'}: ${text}`);
  // SDKs leave sockets and timers behind: the process ends now.
  process.exit(1);
}

function main() {
  const name = process.argv[2];
  if (name === '--list') {
    for (const [known, { kind }] of cases) console.log(`${known} ${kind}`);
    return;
  }
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  cases
    .get(name)
    .run()
    .then(() => process.exit(0), fail);
}

/// Rejects when `promise` has no end in time.
function within(what, promise, ms = 60000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no end after ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// Calls `check` until it gives something true, and gives that.
async function until(what, check, ms = WAIT_MS) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/// Collects what events bring.
class Inbox {
  constructor() {
    this.items = [];
    this.waiting = [];
    this.put = (item) => {
      const next = this.waiting.shift();
      if (next) next(item);
      else this.items.push(item);
    };
  }

  get empty() {
    return this.items.length === 0;
  }

  next(what, ms = WAIT_MS) {
    if (this.items.length) return Promise.resolve(this.items.shift());
    return within(what, new Promise((resolve) => this.waiting.push(resolve)), ms);
  }
}

/// One command of `harness/control.py`.
async function runner(name, args = {}) {
  const answer = await fetch(`${process.env.INTEROP_CONTROL}/${name}`, {
    method: 'POST',
    body: JSON.stringify(args),
  });
  const body = await answer.json();
  if (answer.status !== 200) throw new Error(`runner ${name}: ${body}`);
  return body;
}

const hub = () => JSON.parse(fs.readFileSync(process.env.INTEROP_HUB, 'utf8'));
const newDevice = (prefix, body = {}) => runner('device', { prefix, body });

/// A REST request that must succeed. Gives the parsed body.
async function expect(method, path, options = {}) {
  const answer = await runner('rest', { method, path, ...options });
  assert(
    [200, 201, 204].includes(answer.status),
    `${method} ${path}: ${answer.status} ${answer.body.slice(0, 300)}`,
  );
  return answer.body.trim() ? JSON.parse(answer.body) : null;
}

const sendCommand = (device, body, headers = {}) =>
  expect('POST', `/devices/${device}/messages/devicebound`, { body, headers, policy: 'service' });

/// Calls a direct method. Gives status and parsed body of the hub's answer.
async function invoke(device, methodName, payload, { module, connect = 0, response = 20 } = {}) {
  const path = module ? `/twins/${device}/modules/${module}/methods` : `/twins/${device}/methods`;
  const body = { methodName, payload, responseTimeoutInSeconds: response, connectTimeoutInSeconds: connect };
  const answer = await runner('rest', { method: 'POST', path, body, policy: 'service' });
  return { status: answer.status, body: answer.body.trim() ? JSON.parse(answer.body) : null };
}

/// Changes desired properties. Gives the new desired version.
async function patchDesired(device, desired, module) {
  const path = module ? `/twins/${device}/modules/${module}` : `/twins/${device}`;
  const body = { properties: { desired } };
  const twin = await expect('PATCH', path, { body, headers: { 'If-Match': '"*"' }, policy: 'service' });
  return twin.properties.desired.$version;
}

/// The stored records of a device, exactly `count` of them.
async function records(device, count) {
  const found = await runner('records', { device, count });
  assert.strictEqual(
    found.length,
    count,
    `stored records of ${device}: ${JSON.stringify(found).slice(0, 300)}`,
  );
  return found;
}

const properties = (record) => record.properties;

/// System properties by routed name; the device is kept as the record's key.
function system(record) {
  // Each record has the generation at least: none at all means that the reader hides them.
  assert(Object.keys(record.system).length, '`device monitor --json` shows no system properties');
  return { 'iothub-connection-device-id': record.device, ...record.system };
}

/// Fails unless `promise` is rejected by an error of this name.
async function rejected(what, promise, name) {
  try {
    await within(what, promise);
  } catch (error) {
    assert.strictEqual(error.name, name, `${what}: ${error.name}: ${error.message}`);
    return error;
  }
  throw new Error(`${what}: succeeded, wanted ${name}`);
}

module.exports = {
  Inbox,
  assert,
  expect,
  hub,
  invoke,
  main,
  newDevice,
  patchDesired,
  properties,
  records,
  rejected,
  runner,
  sendCommand,
  system,
  test,
  until,
  within,
};
