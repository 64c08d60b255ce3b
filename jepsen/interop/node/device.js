// `azure-iot-device` (Node) over MQTT: every call of the checklist, on TCP (`node.mqtt.…`) and WebSocket (`node.ws.…`).
//
// Rows: open, sendEvent, sendEventBatch, message and its settlement, onDeviceMethod, getTwin, reported.update,
// desired changes, token renewal, modelId, blob upload, X.509, and what is refused.
'use strict';

const fs = require('node:fs');
const { Readable } = require('node:stream');
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
const { Client, Message, TRANSPORTS, checkReachable, client, listen, opened } = require('./kit_device');

function both(name, run) {
  for (const [label, transport] of Object.entries(TRANSPORTS))
    test(`node.${label}.${name}`, () => run(transport));
}

both('open', async (transport) => {
  const identity = await newDevice('js-open');
  const device = await opened(identity, transport);
  const path = `/devices/${identity.deviceId}`;
  await until(
    'registry says connected',
    async () => (await expect('GET', path)).connectionState === 'Connected',
  );
  await within('close', device.close());
  await until(
    'registry says disconnected',
    async () => (await expect('GET', path)).connectionState === 'Disconnected',
  );
});

both('sendEvent', async (transport) => {
  const identity = await newDevice('js-send');
  const device = await opened(identity, transport);
  for (const body of ['one', 'two', '', 'x'.repeat(200000)])
    await within('send', device.sendEvent(new Message(body)));
  const found = (await records(identity.deviceId, 4)).map((record) => record.body);
  assert.deepStrictEqual([found[0], found[1], found[2], found[3].length], ['one', 'two', '', 200000]);
  // Many at once: all are acknowledged, and stored in order.
  await within(
    '100 at once',
    Promise.all([...Array(100).keys()].map((n) => device.sendEvent(new Message(`n${n}`)))),
  );
  const many = (await records(identity.deviceId, 104)).slice(4).map((record) => record.body);
  assert.deepStrictEqual(
    many,
    [...Array(100).keys()].map((n) => `n${n}`),
  );
  await within('close', device.close());
});

both('sendEvent_properties', async (transport) => {
  const identity = await newDevice('js-props');
  const device = await opened(identity, transport);
  const message = new Message('{}');
  Object.assign(message, {
    messageId: 'm-1',
    correlationId: 'c 1',
    userId: 'u@x',
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    expiryTimeUtc: '2036-01-01T00:00:00.0000000Z',
  });
  message.properties.add('a b', 'c+d/e');
  message.properties.add('ключ', 'значение & = %');
  message.properties.add('dt-subject', 'part');
  await within('send', device.sendEvent(message));
  const [record] = await records(identity.deviceId, 1);
  assert.deepStrictEqual(properties(record), { 'a b': 'c+d/e', ключ: 'значение & = %' });
  const wanted = {
    'message-id': 'm-1',
    'correlation-id': 'c 1',
    'user-id': 'u@x',
    'content-type': 'application/json',
    'content-encoding': 'utf-8',
    'absolute-expiry-time': '2036-01-01T00:00:00.0000000Z',
    'dt-subject': 'part',
    'iothub-connection-device-id': identity.deviceId,
  };
  for (const [name, value] of Object.entries(wanted)) assert.strictEqual(system(record)[name], value, name);
  await within('close', device.close());
});

both('sendEventBatch', async (transport) => {
  // MQTT has no batches: the SDK itself says so, and the connection lives on.
  const identity = await newDevice('js-batch');
  const device = await opened(identity, transport);
  await rejected('sendEventBatch', device.sendEventBatch([new Message('x')]), 'NotImplementedError');
  await within('send', device.sendEvent(new Message('alive')));
  await within('close', device.close());
});

both('message', async (transport) => {
  const identity = await newDevice('js-c2d');
  const id = identity.deviceId;
  const device = await opened(identity, transport);
  const inbox = new Inbox();
  device.on('message', inbox.put);
  await sendCommand(id, 'first', {
    'iothub-messageid': 'm1',
    'iothub-correlationid': 'c1',
    'iothub-ack': 'full',
    'iothub-app-colour': 'blue & green/=',
    'iothub-app-plain': 'x',
  });
  const message = await inbox.next('command');
  assert.deepStrictEqual(
    [message.data.toString(), message.messageId, message.correlationId],
    ['first', 'm1', 'c1'],
  );
  assert.strictEqual(message.to, `/devices/${id}/messages/deviceBound`);
  const found = Object.fromEntries(message.properties.propertyList.map(({ key, value }) => [key, value]));
  // This SDK knows no `ack` over MQTT and shows it as a property.
  assert.deepStrictEqual([found.colour, found.plain, found['iothub-ack']], ['blue & green/=', 'x', 'full']);
  for (let n = 0; n < 20; n += 1) await sendCommand(id, `n${n}`);
  for (let n = 0; n < 20; n += 1) assert.strictEqual((await inbox.next('command')).data.toString(), `n${n}`);
  await within('complete', device.complete(message));
  await rejected('reject', device.reject(message), 'NotImplementedError');
  await rejected('abandon', device.abandon(message), 'NotImplementedError');
  await until(
    'queue is empty',
    async () => (await expect('GET', `/devices/${id}`)).cloudToDeviceMessageCount === 0,
  );
  await within('close', device.close());
});

both('onDeviceMethod', async (transport) => {
  const identity = await newDevice('js-method');
  const id = identity.deviceId;
  const device = await opened(identity, transport);
  device.onDeviceMethod('do-it', (request, response) =>
    response.send(201, { got: request.payload }, () => {}),
  );
  device.onDeviceMethod('quiet', (request, response) => response.send(204, undefined, () => {}));
  for (const payload of [{ a: [1, null, 'ü'] }, [1, 2], 'text', 7, true, null]) {
    const answer = await invoke(id, 'do-it', payload, { connect: 20 });
    assert.deepStrictEqual(answer, { status: 200, body: { status: 201, payload: { got: payload } } });
  }
  const quiet = await invoke(id, 'quiet', null);
  assert.deepStrictEqual([quiet.status, quiet.body.status], [200, 204]);
  // The SDK drops what nobody listens for, and the caller is told in time.
  assert.strictEqual((await invoke(id, 'nobody-listens', null, { response: 5 })).status, 504);
  await within('close', device.close());
  assert.strictEqual((await invoke(id, 'do-it', null)).status, 404);
});

both('getTwin', async (transport) => {
  const identity = await newDevice('js-twin');
  const version = await patchDesired(identity.deviceId, { interval: 5, nested: { a: 1 } });
  const device = await opened(identity, transport);
  const twin = await within('getTwin', device.getTwin());
  assert.deepStrictEqual(
    [twin.properties.desired.interval, twin.properties.desired.nested.a, twin.properties.desired.$version],
    [5, 1, version],
  );
  assert.strictEqual(twin.properties.reported.$version, 1);
  assert(!('$metadata' in twin.properties.desired), 'metadata is no business of the device');
  await within('close', device.close());
});

const report = (twin, patch) =>
  new Promise((resolve, reject) =>
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve())),
  );

both('reported_update', async (transport) => {
  const identity = await newDevice('js-report');
  const device = await opened(identity, transport);
  const twin = await within('getTwin', device.getTwin());
  await within('report', report(twin, { fw: { major: 1, minor: 2 }, list: [1, { x: 2 }] }));
  await within('report', report(twin, { fw: { minor: null }, ok: true }));
  const found = (await expect('GET', `/twins/${identity.deviceId}`)).properties.reported;
  assert.deepStrictEqual(
    [found.fw, found.list, found.ok, found.$version],
    [{ major: 1 }, [1, { x: 2 }], true, 3],
  );
  await within('close', device.close());
});

both('reported_refused', async (transport) => {
  // Node looks at `errorCode` in the body only: a refusal without it would look like success.
  const identity = await newDevice('js-refuse');
  const device = await opened(identity, transport);
  const twin = await within('getTwin', device.getTwin());
  const large = Object.fromEntries([...Array(9).keys()].map((n) => [`k${n}`, 'x'.repeat(4000)]));
  for (const [what, patch] of [
    ['33 KiB', large],
    ['a dot', { 'a.b': 1 }],
  ]) {
    let refused;
    await within(what, report(twin, patch)).catch((error) => {
      refused = error;
    });
    assert(refused, `${what}: was accepted`);
    assert(!/no end after/.test(refused.message), refused.message);
  }
  assert.strictEqual((await expect('GET', `/twins/${identity.deviceId}`)).properties.reported.$version, 1);
  await within('close', device.close());
});

both('properties_desired', async (transport) => {
  const identity = await newDevice('js-desired');
  const device = await opened(identity, transport);
  const inboxes = await listen(device);
  // Also says that the subscription, which the SDK makes without a callback, is in place.
  await checkReachable(identity, inboxes, 'ready');
  const nested = new Inbox();
  // A new listener is told the value of now, which is none.
  inboxes.twin.on('properties.desired.nested', (value) => value && nested.put(value));
  for (let n = 0; n < 5; n += 1) {
    const version = await patchDesired(identity.deviceId, { nested: { n } });
    assert.strictEqual((await nested.next('nested change')).n, n);
    let whole = await inboxes.patches.next('whole change');
    while (whole.$version < version) whole = await inboxes.patches.next('whole change');
    assert.deepStrictEqual([whole.nested.n, whole.$version], [n, version]);
  }
  assert.strictEqual(inboxes.twin.properties.desired.nested.n, 4);
  await within('close', device.close());
});

both('token_renewal', async (transport) => {
  // DISCONNECT, CONNECT and no SUBSCRIBE: a life of 20 s with a margin of 15 s renews after 5 s.
  const identity = await newDevice('js-renew');
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
  device.on('_sharedAccessSignatureUpdated', renewed.put);
  provider.on('newTokenAvailable', renewed.put);
  await renewed.next('renewal');
  await renewed.next('second renewal');
  await within('send', device.sendEvent(new Message('after')));
  await checkReachable(identity, inboxes, 'after');
  assert.deepStrictEqual(
    (await records(identity.deviceId, 1)).map((record) => record.body),
    ['after'],
  );
  await within('close', device.close());
});

both('modelId', async (transport) => {
  const identity = await newDevice('js-model');
  const device = client(identity, transport);
  await within('setOptions', device.setOptions({ modelId: 'dtmi:com:example:T;1' }));
  await within('open', device.open());
  await within('send', device.sendEvent(new Message('21')));
  assert.strictEqual(
    system((await records(identity.deviceId, 1))[0])['dt-dataschema'],
    'dtmi:com:example:T;1',
  );
  assert.strictEqual((await expect('GET', `/twins/${identity.deviceId}`)).modelId, 'dtmi:com:example:T;1');
  await within('close', device.close());
});

both('blob_upload', async (transport) => {
  // HTTPS on 443 whatever the transport; the notification has the correlation id in its path.
  const identity = await newDevice('js-blob');
  const device = await opened(identity, transport);
  const info = await within(
    'getBlobSharedAccessSignature',
    device.getBlobSharedAccessSignature('folder/file.bin'),
  );
  assert.strictEqual(info.blobName, `${identity.deviceId}/folder/file.bin`);
  assert(
    info.correlationId && info.hostName && info.containerName && info.sasToken.startsWith('?'),
    JSON.stringify(info),
  );
  const url = `https://${info.hostName}/${info.containerName}/${info.blobName}${info.sasToken}`;
  const put = await fetch(url, {
    method: 'PUT',
    body: 'content',
    headers: { 'x-ms-blob-type': 'BlockBlob' },
  });
  assert.strictEqual(put.status, 201);
  await within(
    'notifyBlobUploadStatus',
    device.notifyBlobUploadStatus(info.correlationId, true, 201, 'created'),
  );
  assert.strictEqual(await (await fetch(url)).text(), 'content');
  await within('close', device.close());
});

both('uploadToBlob', async (transport) => {
  // All three steps by the SDK; the middle one by Azure's storage SDK inside it. Twice, small and larger.
  const identity = await newDevice('js-upload');
  const device = await opened(identity, transport);
  for (const size of [20, 3 << 20]) {
    const content = Buffer.alloc(size, 'abc');
    await within(
      `uploadToBlob of ${size} bytes`,
      device.uploadToBlob(`file-${size}.bin`, Readable.from([content]), size),
    );
  }
  await within('close', device.close());
});

both('x509', async (transport) => {
  const certificate = await runner('certificate', { name: 'js-x509' + transport.name });
  const x509Thumbprint = { primaryThumbprint: certificate.sha1, secondaryThumbprint: null };
  const identity = await newDevice('js-x509', { authentication: { type: 'selfSigned', x509Thumbprint } });
  const device = client(identity, transport);
  await within(
    'setOptions',
    device.setOptions({
      cert: fs.readFileSync(certificate.cert, 'utf8'),
      key: fs.readFileSync(certificate.key, 'utf8'),
    }),
  );
  await within('open', device.open());
  await within('send', device.sendEvent(new Message('certificate')));
  assert.strictEqual((await records(identity.deviceId, 1))[0].body, 'certificate');
  await within('close', device.close());
});

both('refused', async (transport) => {
  const identity = await newDevice('js-refused');
  const key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=';
  const wrong = (deviceId) => ({
    connectionString: `HostName=localhost;DeviceId=${deviceId};SharedAccessKey=${key}`,
  });
  await rejected('a wrong key', client(wrong(identity.deviceId), transport).open(), 'UnauthorizedError');
  await rejected('an unknown device', client(wrong('nobody-here'), transport).open(), 'UnauthorizedError');
});

both('takeover', async (transport) => {
  // The older client comes back by itself unless it is told not to; then the newest stays.
  const { NoRetry } = require('azure-iot-common');
  const identity = await newDevice('js-takeover');
  const older = await opened(identity, transport);
  older.setRetryPolicy(new NoRetry());
  const dropped = new Inbox();
  older.on('disconnect', dropped.put);
  const newer = await opened(identity, transport);
  await dropped.next('the older is cut');
  await within('send', newer.sendEvent(new Message('newest')));
  assert.strictEqual((await records(identity.deviceId, 1))[0].body, 'newest');
  await within('close', newer.close());
});

main();
