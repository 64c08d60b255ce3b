// Function apps written for the cloud, in Python (v2) and Node (v4), deployed by `fleetline functions deploy`: what their
// functions see, what their outputs do, retries, killed workers and nodes. Devices are `azure-iot-device`,
// pages `@microsoft/signalr`, which comes in by the app's own `negotiate`.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Message } = require('azure-iot-device');
const { Inbox, assert, expect, main, newDevice, runner, test, until, within } = require('../node/kit');
const { opened } = require('../node/kit_device');
const { Service, fresh, started } = require('../node/kit_realtime');

// A Python function gives text, and the client gets text; Node gives a number.
const APPS = {
  python: { folder: 'python_v2', devices: 'fpy', sum: '3' },
  node: { folder: 'node_v4', devices: 'fjs', sum: 3 },
};

/// The app of a language, deployed. It is there once for all cases of a hub.
async function deployed(language) {
  const { folder, devices } = APPS[language];
  const name = `interop-${language}`;
  const hub = `functions${language}`;
  const at = path.join(__dirname, 'apps', folder);
  await runner('deploy', { folder: at, app: name, settings: { DEVICES: devices, REALTIME_HUB: hub } });
  const service = await Service.of();
  return { name, hub, devices, service, base: `${service.base}/apps/${name}/api` };
}

/// A client of the app's realtime hub, by the app's `negotiate`. It has what others send when it is told so.
const page = (app, target) => started(`${app.base}?user=me`, { target });

const sendJson = (device, body, properties = {}) => {
  const message = new Message(JSON.stringify(body));
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
  return within('send', device.sendEvent(message));
};

/// A folder that workers may write to, whoever they run as.
function commonFolder() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'interop-'));
  fs.chmodSync(folder, 0o777);
  process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/// The process id of the worker that waits at a gate.
const waiting = (gate) =>
  until('a worker waits at the gate', () => fs.existsSync(`${gate}.pid`) && Number(fs.readFileSync(`${gate}.pid`)), 90000);

const processes = (pid) => Number(/^PPid:\s*(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);

/// The commands of a device until the one with this body, each answered.
async function commandsUntil(device, last) {
  const commands = new Inbox();
  device.on('message', (message) => {
    device.complete(message, () => commands.put(message.data.toString()));
  });
  const found = [];
  while (found.at(-1) !== last) found.push(await commands.next(`command ${last} after ${found}`, 90000));
  return found;
}

/// Twenty records of a device, of which the first holds its batch.
async function heldBatch(app) {
  const gate = path.join(commonFolder(), 'gate');
  const identity = await newDevice(app.devices);
  const device = await opened(identity);
  const sending = [sendJson(device, { gate, command: '0' })];
  for (let n = 1; n < 20; n += 1) sending.push(sendJson(device, { command: String(n) }));
  await Promise.all(sending);
  return { gate, identity, device, wanted: Array.from({ length: 20 }, (_, n) => String(n)) };
}

for (const language of Object.keys(APPS)) {
  test(
    `functions.${language}.telemetry`,
    async () => {
      const app = await deployed(language);
      const { inbox } = await page(app, 'said');
      const identity = await newDevice(app.devices);
      const device = await opened(identity);
      await sendJson(device, { say: 'ü' }, { colour: 'red' });
      const [found] = await inbox.next('said');
      assert.deepStrictEqual([found.say, found.device], ['ü', identity.deviceId]);
      assert.strictEqual(found.properties.colour, 'red');
      assert(Number.isInteger(found.sequence) && found.sequence >= 0, `sequence ${found.sequence}`);
      assert.match(String(found.offset), /^\d+$/);
      assert(Math.abs(Date.parse(found.enqueued) - Date.now()) < 60000, `enqueued ${found.enqueued}`);
      assert.strictEqual(found.system['connection-device-id'], identity.deviceId);
      assert.strictEqual(found.system['connection-auth-generation-id'], identity.generationId);
      assert.strictEqual(found.system['message-source'], 'Telemetry');
      await within('close', device.close());
    },
    'tiers',
  );

  test(
    `functions.${language}.twin_and_command`,
    async () => {
      const app = await deployed(language);
      const identity = await newDevice(app.devices);
      const device = await opened(identity);
      const commands = commandsUntil(device, 'done');
      await sendJson(device, { twin: 7, command: 'done' });
      assert.deepStrictEqual(await commands, ['done']);
      const twin = await expect('GET', `/twins/${identity.deviceId}`);
      assert.deepStrictEqual([twin.tags.n, twin.properties.desired.n], [7, 7]);
    },
    'tiers',
  );

  test(
    `functions.${language}.http`,
    async () => {
      const app = await deployed(language);
      const call = (key) =>
        fetch(`${app.base}/hello/you?a=b`, { method: 'POST', body: 'text', headers: key ? { 'x-functions-key': key } : {} });
      assert.deepStrictEqual([(await call()).status, (await call('wrong')).status], [401, 401]);
      const drawn = await expect('POST', `/functions/apps/${app.name}/keys`, { body: { name: fresh('k') } });
      const key = drawn.value || drawn.key;
      assert(key, `no key in ${Object.keys(drawn)}`);
      const answer = await until('the key is known', async () => {
        const found = await call(key);
        return found.status !== 401 && found;
      });
      assert.deepStrictEqual([answer.status, answer.headers.get('x-mark')], [201, '1']);
      assert.deepStrictEqual(await answer.json(), { name: 'you', query: { a: 'b' }, body: 'text' });
    },
    'tiers',
  );

  test(
    `functions.${language}.realtime_call`,
    async () => {
      const app = await deployed(language);
      for (const protocol of ['json', 'msgpack']) {
        const { connection } = await started(`${app.base}?user=me`, { target: 'none', protocol });
        assert.strictEqual(await within('invoke', connection.invoke('add', 1, 2)), APPS[language].sum, protocol);
        await within('stop', connection.stop());
      }
    },
    'tiers',
  );

  test(
    `functions.${language}.timer`,
    async () => {
      const app = await deployed(language);
      const { inbox } = await page(app, 'tick');
      for (let n = 0; n < 2; n += 1) assert.deepStrictEqual(await inbox.next('tick'), [false]);
    },
    'tiers',
  );

  test(
    `functions.${language}.event_grid`,
    async () => {
      const app = await deployed(language);
      const { inbox } = await page(app, 'lifecycle');
      const { deviceId } = await newDevice(app.devices);
      for (;;) {
        const [type, data] = await inbox.next('lifecycle');
        if (data.deviceId !== deviceId) continue;
        assert.strictEqual(type, 'Microsoft.Devices.DeviceCreated');
        return;
      }
    },
    'tiers',
  );

  test(
    `functions.${language}.retry_and_poison`,
    async () => {
      const app = await deployed(language);
      const identity = await newDevice(app.devices);
      const device = await opened(identity);
      const trace = path.join(commonFolder(), 'trace');
      await sendJson(device, { fail: trace });
      const [poison, ...others] = await runner('made', { device: identity.deviceId, source: 'functionPoison', count: 1 });
      assert(poison && others.length === 0, 'one poison record');
      assert.strictEqual(fs.readFileSync(trace, 'utf8'), '0\n1\n2\n');
      assert.strictEqual(poison.body, JSON.stringify({ fail: trace }));
      assert.strictEqual(poison.properties['iothub-poison-function'], `${app.name}/events`);
      assert.match(poison.properties['iothub-poison-reason'], /can't be processed/);
      const commands = commandsUntil(device, 'after');
      await sendJson(device, { command: 'after' });
      assert.deepStrictEqual(await commands, ['after']);
    },
    'tiers',
  );

  test(
    `functions.${language}.worker_killed`,
    async () => {
      const app = await deployed(language);
      const { gate, device, wanted } = await heldBatch(app);
      process.kill(await waiting(gate), 'SIGKILL');
      fs.writeFileSync(gate, '');
      await sendJson(device, { command: 'end' });
      // Each command once, in the order of the records; a second commit would come before the end.
      assert.deepStrictEqual(await commandsUntil(device, 'end'), [...wanted, 'end']);
    },
    'tiers',
  );

  test(
    `functions.cluster.${language}.node_killed`,
    async () => {
      const app = await deployed(language);
      const { gate, identity, device, wanted } = await heldBatch(app);
      await within('close', device.close());
      const parent = processes(await waiting(gate));
      const node = (await runner('info')).processes.indexOf(parent);
      assert(node >= 0, `process ${parent} is no node`);
      await runner('target', { node: (node + 1) % 3 });
      await runner('kill', { node });
      fs.writeFileSync(gate, '');
      const again = await until('a device is let in', () => opened(identity).catch(() => undefined), 90000);
      await sendJson(again, { command: 'end' });
      assert.deepStrictEqual(await commandsUntil(again, 'end'), [...wanted, 'end']);
    },
    'tiers-cluster',
  );
}

main();
