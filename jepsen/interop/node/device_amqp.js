// `azure-iot-device` (Node) over AMQP, on TCP (`node.amqp.…`) and WebSocket (`node.amqpws.…`).
//
// What MQTT does as well is short here; rejecting and abandoning commands exist on AMQP alone.
'use strict';

const fs = require('node:fs');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { SharedAccessKeyAuthenticationProvider } = require('azure-iot-device');
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
  rejected,
  runner,
  sendCommand,
  system,
  test,
  until,
  within,
} = require('./kit');
const { Client, Message, checkReachable, client, listen, opened } = require('./kit_device');

function both(name, run) {
  for (const [label, transport] of Object.entries({ amqp: Amqp, amqpws: AmqpWs }))
    test(`node.${label}.${name}`, () => run(transport));
}

const bodies = async (id, count) => (await records(id, count)).map((record) => record.body);
const queued = async (id) => (await expect('GET', `/devices/${id}`)).cloudToDeviceMessageCount;

both('open', async (transport) => {
  const identity = await newDevice('js-amqp-open');
  const device = await opened(identity, transport);
  await within('send', device.sendEvent(new Message('here')));
  const path = `/devices/${identity.deviceId}`;
  await until('connected', async () => (await expect('GET', path)).connectionState === 'Connected');
  await within('close', device.close());
  await until('disconnected', async () => (await expect('GET', path)).connectionState === 'Disconnected');
});

both('sendEvent', async (transport) => {
  const identity = await newDevice('js-amqp-send');
  const device = await opened(identity, transport);
  for (const body of ['one', '', 'x'.repeat(200000)])
    await within('send', device.sendEvent(new Message(body)));
  await within(
    '100 at once',
    Promise.all([...Array(100).keys()].map((n) => device.sendEvent(new Message(`n${n}`)))),
  );
  const found = await bodies(identity.deviceId, 103);
  assert.deepStrictEqual([found[0], found[1], found[2].length], ['one', '', 200000]);
  assert.deepStrictEqual(
    found.slice(3),
    [...Array(100).keys()].map((n) => `n${n}`),
  );
  await within('close', device.close());
});

both('sendEvent_properties', async (transport) => {
  const identity = await newDevice('js-amqp-props');
  const device = await opened(identity, transport);
  const message = new Message('{}');
  const id = '6f1a2b3c-0d4e-4f50-8a6b-7c8d9e0f1a2b';
  Object.assign(message, {
    messageId: id,
    correlationId: 'c 1',
    contentType: 'application/json',
    contentEncoding: 'utf-8',
  });
  message.properties.add('a b', 'c+d/e');
  message.properties.add('ключ', 'значение & = %');
  await within('send', device.sendEvent(message));
  const [record] = await records(identity.deviceId, 1);
  assert.deepStrictEqual(properties(record), { 'a b': 'c+d/e', ключ: 'значение & = %' });
  // This SDK sends an id that looks like a UUID as one.
  const wanted = {
    'message-id': id,
    'correlation-id': 'c 1',
    'content-type': 'application/json',
    'content-encoding': 'utf-8',
    'iothub-connection-device-id': identity.deviceId,
  };
  for (const [name, value] of Object.entries(wanted)) assert.strictEqual(system(record)[name], value, name);
  await within('close', device.close());
});

both('sendEventBatch', async (transport) => {
  // The SDK itself refuses batches, on AMQP too, and the connection lives on.
  const identity = await newDevice('js-amqp-batch');
  const device = await opened(identity, transport);
  await rejected('sendEventBatch', device.sendEventBatch([new Message('x')]), 'NotImplementedError');
  await within('send', device.sendEvent(new Message('alive')));
  assert.deepStrictEqual(await bodies(identity.deviceId, 1), ['alive']);
  await within('close', device.close());
});

both('too_large', async (transport) => {
  // One message is refused; the link and what follows live on.
  const identity = await newDevice('js-amqp-large');
  const device = await opened(identity, transport);
  let refused;
  await within('send', device.sendEvent(new Message('x'.repeat(300 * 1024)))).catch((error) => {
    refused = error;
  });
  assert(refused && refused.name === 'MessageTooLargeError', `${refused && refused.name}: ${refused}`);
  await within('send', device.sendEvent(new Message('alive')));
  assert.deepStrictEqual(await bodies(identity.deviceId, 1), ['alive']);
  await within('close', device.close());
});

both('commands', async (transport) => {
  const identity = await newDevice('js-amqp-c2d');
  const id = identity.deviceId;
  const device = await opened(identity, transport);
  const inbox = new Inbox();
  device.on('message', inbox.put);
  await sendCommand(id, 'first', {
    'iothub-messageid': 'm1',
    'iothub-correlationid': 'c1',
    'iothub-app-colour': 'blue & green/=',
  });
  const first = await inbox.next('command');
  assert.deepStrictEqual(
    [first.data.toString(), first.messageId, first.correlationId, first.properties.getValue('colour')],
    ['first', 'm1', 'c1', 'blue & green/='],
  );
  assert.strictEqual(await queued(id), 1, 'it is in the queue until it is settled');
  await within('abandon', device.abandon(first));
  const again = await inbox.next('the abandoned command');
  assert.strictEqual(again.data.toString(), 'first');
  await within('complete', device.complete(again));
  await until('completed: the queue is empty', async () => (await queued(id)) === 0);
  await sendCommand(id, 'second');
  await within('reject', device.reject(await inbox.next('second command')));
  await until('rejected: the queue is empty', async () => (await queued(id)) === 0);
  for (let n = 0; n < 20; n += 1) await sendCommand(id, `n${n}`);
  for (let n = 0; n < 20; n += 1) {
    const message = await inbox.next('command');
    assert.strictEqual(message.data.toString(), `n${n}`);
    await within('complete', device.complete(message));
  }
  await within('close', device.close());
});

both('methods', async (transport) => {
  const identity = await newDevice('js-amqp-method');
  const id = identity.deviceId;
  const device = await opened(identity, transport);
  device.onDeviceMethod('do-it', (request, response) =>
    response.send(201, { got: request.payload }, () => {}),
  );
  for (const payload of [{ a: [1, null, 'ü'] }, [1, 2], 'text', 7, true, null]) {
    const answer = await invoke(id, 'do-it', payload, { connect: 20 });
    assert.deepStrictEqual(answer, { status: 200, body: { status: 201, payload: { got: payload } } });
  }
  await within('close', device.close());
  assert.strictEqual((await invoke(id, 'do-it', null)).status, 404);
});

const report = (twin, patch) =>
  new Promise((resolve, reject) =>
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve())),
  );

both('twin', async (transport) => {
  const identity = await newDevice('js-amqp-twin');
  const version = await patchDesired(identity.deviceId, { interval: 5, nested: { a: 1 } });
  const device = await opened(identity, transport);
  const twin = await within('getTwin', device.getTwin());
  const { interval, nested, $version } = twin.properties.desired;
  assert.deepStrictEqual([interval, nested.a, $version], [5, 1, version]);
  await within('report', report(twin, { fw: { major: 1, minor: 2 }, list: [1, { x: 2 }] }));
  await within('report', report(twin, { fw: { minor: null }, ok: true }));
  const found = (await expect('GET', `/twins/${identity.deviceId}`)).properties.reported;
  assert.deepStrictEqual(
    [found.fw, found.list, found.ok, found.$version],
    [{ major: 1 }, [1, { x: 2 }], true, 3],
  );
  let refused;
  await within('a dot', report(twin, { 'a.b': 1 })).catch((error) => {
    refused = error;
  });
  assert(refused && !/no end after/.test(refused.message), `a dot: ${refused}`);
  await within('close', device.close());
});

both('reachable', async (transport) => {
  // Commands, methods and desired changes on one connection, and again after a new token.
  const identity = await newDevice('js-amqp-reach');
  const provider = SharedAccessKeyAuthenticationProvider.fromConnectionString(
    identity.connectionString,
    20,
    15,
  );
  const device = Client.fromAuthenticationProvider(provider, transport);
  await within('open', device.open());
  const inboxes = await listen(device);
  await checkReachable(identity, inboxes, 'before');
  const renewed = new Inbox();
  provider.on('newTokenAvailable', renewed.put);
  for (let n = 0; n < 5; n += 1) await renewed.next(`renewal ${n}`);
  // More than 20 s have passed: the first token is over, and what it opened lives on.
  await within('send', device.sendEvent(new Message('after')));
  await checkReachable(identity, inboxes, 'after');
  assert.deepStrictEqual(await bodies(identity.deviceId, 1), ['after']);
  await within('close', device.close());
});

both('x509', async (transport) => {
  const certificate = await runner('certificate', { name: 'js-amqp-x509' + transport.name });
  const x509Thumbprint = { primaryThumbprint: certificate.sha1, secondaryThumbprint: null };
  const identity = await newDevice('js-amqp-x509', { authentication: { type: 'selfSigned', x509Thumbprint } });
  const device = client(identity, transport);
  const options = {
    cert: fs.readFileSync(certificate.cert, 'utf8'),
    key: fs.readFileSync(certificate.key, 'utf8'),
  };
  await within('setOptions', device.setOptions(options));
  await within('open', device.open());
  await within('send', device.sendEvent(new Message('by certificate')));
  assert.deepStrictEqual(await bodies(identity.deviceId, 1), ['by certificate']);
  await within('close', device.close());
});

both('refused', async (transport) => {
  const identity = await newDevice('js-amqp-key');
  const wrong = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=';
  const connectionString = identity.connectionString.replace(/SharedAccessKey=.*/, `SharedAccessKey=${wrong}`);
  const device = client({ ...identity, connectionString }, transport);
  let refused;
  await within('open', device.open()).catch((error) => {
    refused = error;
  });
  assert(refused && refused.name === 'UnauthorizedError', `${refused && refused.name}: ${refused}`);
});

main();
