// Faults under `azure-iot-device` (Node): connections that break, nodes that die. Kinds `relayed` and `cluster`.
//
// Node loses its twin subscriptions on a reconnect and never repeats them, so only a session that the hub kept
// brings desired changes afterwards.
'use strict';

const { Message, TRANSPORTS, checkReachable, listen, opened } = require('./kit_device');
const { Inbox, assert, main, newDevice, records, runner, test, until, within } = require('./kit');

/// A device, and the node that leads its partition; new connections go there.
async function ledDevice(prefix) {
  const identity = await newDevice(prefix);
  const node = await runner('leader', { device: identity.deviceId });
  await runner('target', { node });
  return { identity, node };
}

/// Kills a node; new connections go to the next.
async function failOver(node) {
  await runner('target', { node: (node + 1) % (await runner('info')).nodes });
  await runner('kill', { node });
}

/// A client with every subscription, shown to be reachable.
async function listening(identity, transport) {
  const device = await opened(identity, transport);
  const inboxes = await listen(device);
  await checkReachable(identity, inboxes, 'before');
  const connects = new Inbox();
  device.on('connect', connects.put);
  return { identity, device, inboxes, connects };
}

/// Waits for a record with this body.
const stored = (identity, body) =>
  until(`${body} is stored`, async () =>
    (await runner('records', { device: identity.deviceId, count: 1 })).some((record) => record.body === body),
  );

async function stillWorks({ identity, device, inboxes, connects }, mark) {
  await connects.next('connected again', 120000);
  await checkReachable(identity, inboxes, mark);
  await within('send', device.sendEvent(new Message(mark)), 120000);
  await stored(identity, mark);
}

for (const [label, transport] of Object.entries(TRANSPORTS)) {
  const relay = label === 'mqtt' ? 'mqtt' : 'https';

  test(
    `fault.node.${label}.connection_cut`,
    async () => {
      const all = await listening(await newDevice('js-cut'), transport);
      for (let n = 0; n < 3; n += 1) {
        assert((await runner('cut', { relay })) >= 1, 'nothing was cut');
        await stillWorks(all, `after cut ${n}`);
      }
      await within('close', all.device.close());
    },
    'relayed',
  );

  test(
    `fault.node.${label}.node_killed`,
    async () => {
      const all = await listening(await newDevice('js-kill'), transport);
      await runner('hold');
      await runner('kill');
      await runner('start');
      await runner('release');
      await stillWorks(all, 'after the kill');
      await within('close', all.device.close());
    },
    'relayed',
  );

  test(
    `cluster.node.${label}.failover`,
    async () => {
      // The node that the device is on and that leads its partition dies.
      const { identity, node } = await ledDevice('js-failover');
      const all = await listening(identity, transport);
      await failOver(node);
      await stillWorks(all, 'after the failover');
      await within('close', all.device.close());
    },
    'cluster',
  );
}

test(
  'fault.node.mqtt.send_while_away',
  async () => {
    // What is sent while the hub is away waits in the SDK and is stored once it is back.
    const identity = await newDevice('js-away');
    const device = await opened(identity, TRANSPORTS.mqtt);
    await runner('hold');
    await runner('cut');
    const sent = device.sendEvent(new Message('sent while away'));
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await runner('release');
    await within('send', sent, 120000);
    await stored(identity, 'sent while away');
    await within('close', device.close());
  },
  'relayed',
);

test(
  'cluster.node.mqtt.telemetry_survives',
  async () => {
    // Every message that was acknowledged is stored, though its node dies under it.
    const { identity, node } = await ledDevice('js-survive');
    const device = await opened(identity, TRANSPORTS.mqtt);
    const acknowledged = [];
    let stop = false;
    const sending = (async () => {
      for (let n = 0; !stop; n += 1) {
        const body = `n${n}`;
        await device.sendEvent(new Message(body)).then(
          () => acknowledged.push(body),
          () => {},
        );
      }
    })();
    await until('some are acknowledged', () => acknowledged.length >= 20);
    await failOver(node);
    const before = acknowledged.length;
    await until('more are acknowledged after the kill', () => acknowledged.length >= before + 20, 120000);
    stop = true;
    await within('the last send', sending, 120000);
    const stored = new Set(
      (await runner('records', { device: identity.deviceId, count: acknowledged.length })).map(
        (record) => record.body,
      ),
    );
    assert.deepStrictEqual(
      acknowledged.filter((body) => !stored.has(body)),
      [],
      'acknowledged, not stored',
    );
    await within('close', device.close());
  },
  'cluster',
);

main();
