// `azure-iot-device-http` (Node): sending, batches, polling for commands and settling them, X.509, blob upload, refusals.
'use strict';

const fs = require('node:fs');
const {
  Inbox,
  assert,
  expect,
  main,
  newDevice,
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
const { Client, Http, Message, client } = require('./kit_device');

test('node.http.open', async () => {
  const device = client(await newDevice('js-http'), Http);
  await within('open', device.open());
  await within('close', device.close());
});

test('node.http.sendEvent', async () => {
  const identity = await newDevice('js-http-send');
  const device = client(identity, Http);
  const message = new Message('{"a":1}');
  Object.assign(message, {
    messageId: 'm-1',
    correlationId: 'c-1',
    userId: 'u',
    contentType: 'application/json',
    contentEncoding: 'utf-8',
  });
  message.properties.add('colour', 'blue');
  await within('send', device.sendEvent(message));
  await within('send', device.sendEvent(new Message('two')));
  const found = await records(identity.deviceId, 2);
  assert.deepStrictEqual(
    found.map((record) => record.body),
    ['{"a":1}', 'two'],
  );
  assert.deepStrictEqual(properties(found[0]), { colour: 'blue' });
  const wanted = {
    'message-id': 'm-1',
    'correlation-id': 'c-1',
    'user-id': 'u',
    'content-type': 'application/json',
    'content-encoding': 'utf-8',
    'iothub-connection-device-id': identity.deviceId,
  };
  for (const [name, value] of Object.entries(wanted)) assert.strictEqual(system(found[0])[name], value, name);
  await within('close', device.close());
});

test('node.http.sendEventBatch', async () => {
  const identity = await newDevice('js-http-batch');
  const device = client(identity, Http);
  const messages = [...Array(10).keys()].map((n) => {
    const message = new Message(`b${n}`);
    if (n % 2) message.properties.add('n', `${n}`);
    return message;
  });
  await within('batch', device.sendEventBatch(messages));
  const found = await records(identity.deviceId, 10);
  assert.deepStrictEqual(
    found.map((record) => record.body),
    messages.map((message) => message.data.toString()),
  );
  assert.deepStrictEqual(
    found.map(properties),
    [...Array(10).keys()].map((n) => (n % 2 ? { n: `${n}` } : {})),
  );
  await within('close', device.close());
});

test('node.http.message', async () => {
  // Polling each second; complete, reject and abandon settle for real.
  const identity = await newDevice('js-http-c2d');
  const id = identity.deviceId;
  for (const [n, body] of ['completed', 'rejected', 'abandoned'].entries()) {
    await sendCommand(id, body, { 'iothub-messageid': `m${n}`, 'iothub-app-x': `${n}` });
  }
  const device = client(identity, Http);
  const inbox = new Inbox();
  device.on('message', inbox.put);
  const [first, second, third] = [
    await inbox.next('first'),
    await inbox.next('second'),
    await inbox.next('third'),
  ];
  assert.deepStrictEqual(
    [first, second, third].map((message) => message.data.toString()),
    ['completed', 'rejected', 'abandoned'],
  );
  assert.deepStrictEqual(
    [
      first.messageId,
      first.properties.propertyList.find(({ key }) => key.toLowerCase() === 'iothub-app-x').value,
    ],
    ['m0', '0'],
  );
  await within('complete', device.complete(first));
  await within('reject', device.reject(second));
  await within('abandon', device.abandon(third));
  const again = await inbox.next('abandoned comes again');
  assert.strictEqual(again.data.toString(), 'abandoned');
  await within('complete', device.complete(again));
  await until(
    'queue is empty',
    async () => (await expect('GET', `/devices/${id}`)).cloudToDeviceMessageCount === 0,
  );
  assert(inbox.empty, 'something came twice');
  // A lock that is settled is lost: an error, whatever its name.
  let lost;
  await within('complete twice', device.complete(again)).catch((error) => {
    lost = error;
  });
  assert(lost, 'a settled message was settled again');
  await within('close', device.close());
});

test('node.http.x509', async () => {
  const certificate = await runner('certificate', { name: 'js-http-x509' });
  const x509Thumbprint = { primaryThumbprint: null, secondaryThumbprint: certificate.sha256 };
  const identity = await newDevice('js-http-x509', {
    authentication: { type: 'selfSigned', x509Thumbprint },
  });
  const device = client(identity, Http);
  // Never awaited: with this transport the SDK's promise has no end.
  device.setOptions(
    { cert: fs.readFileSync(certificate.cert, 'utf8'), key: fs.readFileSync(certificate.key, 'utf8') },
    () => {},
  );
  await within('open', device.open());
  await within('send', device.sendEvent(new Message('certificate')));
  assert.strictEqual((await records(identity.deviceId, 1))[0].body, 'certificate');
});

test('node.http.blob_upload', async () => {
  const identity = await newDevice('js-http-blob');
  const device = client(identity, Http);
  const info = await within('getBlobSharedAccessSignature', device.getBlobSharedAccessSignature('file.bin'));
  assert.strictEqual(info.blobName, `${identity.deviceId}/file.bin`);
  await within(
    'notifyBlobUploadStatus',
    device.notifyBlobUploadStatus(info.correlationId, false, 500, 'failed'),
  );
});

test('node.http.refused', async () => {
  const identity = await newDevice('js-http-refused');
  const key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=';
  const of = (id) =>
    Client.fromConnectionString(`HostName=localhost;DeviceId=${id};SharedAccessKey=${key}`, Http);
  await rejected('a wrong key', of(identity.deviceId).sendEvent(new Message('x')), 'UnauthorizedError');
  await rejected('an unknown device', of('nobody-here').sendEvent(new Message('x')), 'UnauthorizedError');
});

test('node.http.disabled', async () => {
  const identity = await newDevice('js-http-disabled');
  const path = `/devices/${identity.deviceId}`;
  const described = await expect('GET', path);
  await expect('PUT', path, { body: { ...described, status: 'disabled' }, headers: { 'If-Match': '*' } });
  let refused;
  await within('send', client(identity, Http).sendEvent(new Message('x'))).catch((error) => {
    refused = error;
  });
  assert(
    refused &&
      ['UnauthorizedError', 'IotHubQuotaExceededError', 'DeviceNotFoundError'].includes(refused.name),
    `${refused}`,
  );
});

main();
