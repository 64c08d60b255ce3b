// `azure-iot-device` (Node) as a module, over both MQTT transports: outputs, inputs, methods, twin.
'use strict';

const {
  Inbox,
  assert,
  expect,
  invoke,
  main,
  newDevice,
  patchDesired,
  properties,
  records,
  runner,
  system,
  test,
  within,
} = require('./kit');
const { Message, TRANSPORTS, opened } = require('./kit_device');

function both(name, run) {
  for (const [label, transport] of Object.entries(TRANSPORTS))
    test(`node.${label}.module.${name}`, () => run(transport));
}

async function openedModule(prefix, transport) {
  const device = await newDevice(prefix);
  const identity = await runner('module', { device: device.deviceId, module: 'sensor' });
  return { identity, module: await opened(identity, transport) };
}

both('sendOutputEvent', async (transport) => {
  // The SDK ends the topic with a slash after the bag; it must not become part of the last value.
  const { identity, module } = await openedModule('js-modout', transport);
  const message = new Message('out');
  message.properties.add('k', 'v');
  await within('sendOutputEvent', module.sendOutputEvent('alerts', message));
  await within('sendEvent', module.sendEvent(new Message('plain')));
  const [out, plain] = await records(identity.deviceId, 2);
  assert.deepStrictEqual([out.body, properties(out), plain.body], ['out', { k: 'v' }, 'plain']);
  assert.strictEqual(system(out)['$.on'], 'alerts');
  assert.deepStrictEqual(
    [out, plain].map((record) => system(record)['iothub-connection-module-id']),
    ['sensor', 'sensor'],
  );
  await within('close', module.close());
});

both('inputMessage', async (transport) => {
  // Nothing routes to inputs of a hub's module: the subscription must be accepted and the connection live on.
  const { identity, module } = await openedModule('js-modin', transport);
  module.on('inputMessage', () => {});
  await within('sendEvent', module.sendEvent(new Message('alive')));
  assert.strictEqual((await records(identity.deviceId, 1))[0].body, 'alive');
  await within('close', module.close());
});

both('onMethod', async (transport) => {
  const { identity, module } = await openedModule('js-modmethod', transport);
  module.onMethod('echo', (request, response) => response.send(200, request.payload, () => {}));
  const answer = await invoke(identity.deviceId, 'echo', { a: 1 }, { module: 'sensor', connect: 20 });
  assert.deepStrictEqual(answer, { status: 200, body: { status: 200, payload: { a: 1 } } });
  await within('close', module.close());
});

both('twin', async (transport) => {
  const { identity, module } = await openedModule('js-modtwin', transport);
  const twin = await within('getTwin', module.getTwin());
  const patches = new Inbox();
  module.onMethod('ready', (request, response) => response.send(200, null, () => {}));
  twin.on('properties.desired', patches.put);
  // Its answer goes out after the subscription to changes.
  await invoke(identity.deviceId, 'ready', null, { module: 'sensor', connect: 20 });
  const version = await patchDesired(identity.deviceId, { a: 1 }, 'sensor');
  let patch = await patches.next('desired change');
  while (patch.$version < version) patch = await patches.next('desired change');
  assert.deepStrictEqual([patch.a, patch.$version], [1, version]);
  await within(
    'report',
    new Promise((resolve, reject) => {
      twin.properties.reported.update({ r: 1 }, (error) => (error ? reject(error) : resolve()));
    }),
  );
  assert.strictEqual(
    (await expect('GET', `/twins/${identity.deviceId}/modules/sensor`)).properties.reported.r,
    1,
  );
  await within('close', module.close());
});

main();
