// `azure-iothub` (Node), AMQP part, on TCP (`service.amqp.node.tcp.…`) and WebSocket (`service.amqp.node.ws.…`):
// commands and feedback.
'use strict';

const { randomUUID } = require('node:crypto');
const { promisify } = require('node:util');
const { Amqp, AmqpWs, Client } = require('azure-iothub');
const { Message } = require('azure-iot-common');
const { Amqp: DeviceAmqp } = require('azure-iot-device-amqp');
const { Inbox, assert, expect, hub, main, newDevice, test, until, within } = require('./kit');
const { opened } = require('./kit_device');

function both(name, run) {
  for (const [label, transport] of Object.entries({ tcp: Amqp, ws: AmqpWs }))
    test(`service.amqp.node.${label}.${name}`, () => run(transport));
}

async function service(transport, policy = 'service') {
  const client = Client.fromConnectionString(hub().connectionStrings[policy], transport);
  await within('open', client.open());
  return client;
}

function message(body, ack) {
  const made = new Message(body);
  made.messageId = randomUUID();
  made.ack = ack;
  made.properties.add('colour', 'blue & green/=');
  return made;
}

both('commands', async (transport) => {
  const identity = await newDevice('js-svc-c2d');
  const id = identity.deviceId;
  const client = await service(transport);
  const device = await opened(identity, DeviceAmqp);
  const inbox = new Inbox();
  device.on('message', inbox.put);
  const sent = message('{"a":1}', 'none');
  await within('send', client.send(id, sent));
  const found = await inbox.next('command');
  assert.deepStrictEqual(
    [found.data.toString(), found.messageId, found.properties.getValue('colour')],
    ['{"a":1}', sent.messageId, 'blue & green/='],
  );
  await within('complete', device.complete(found));
  await until(
    'the queue is empty',
    async () => (await expect('GET', `/devices/${id}`)).cloudToDeviceMessageCount === 0,
  );
  let refused;
  await within('send', client.send('nobody-here', message('x'))).catch((error) => {
    refused = error;
  });
  assert(refused && refused.name === 'DeviceNotFoundError', `${refused && refused.name}: ${refused}`);
  await within('send', client.send(id, message('alive')));
  assert.strictEqual((await inbox.next('a command after the refusal')).data.toString(), 'alive');
  await within('close', device.close());
  await within('close', client.close());
});

async function feedback(transport) {
  const identity = await newDevice('js-svc-feedback');
  const id = identity.deviceId;
  const client = await service(transport);
  const receiver = await within('getFeedbackReceiver', promisify(client.getFeedbackReceiver.bind(client))());
  const told = new Inbox();
  receiver.on('message', (batch) => {
    for (const one of JSON.parse(batch.data.toString())) if (one.deviceId === id) told.put(one);
    receiver.complete(batch, () => {});
  });
  const device = await opened(identity, DeviceAmqp);
  device.on('message', (command) => {
    const settle = command.data.toString() === 'yes' ? device.complete : device.reject;
    settle.call(device, command, () => {});
  });
  // One after the other: the SDK's library puts settlements of two commands that arrive together into one,
  // with the outcome of the first.
  for (const [body, status] of [
    ['yes', 'Success'],
    ['no', 'Rejected'],
  ]) {
    const sent = message(body, 'full');
    await within('send', client.send(id, sent));
    const found = await told.next(`feedback on ${body}`);
    assert.deepStrictEqual(
      [found.originalMessageId, found.statusCode, found.deviceGenerationId],
      [sent.messageId, status, identity.generationId],
    );
    assert(Math.abs(Date.now() - Date.parse(found.enqueuedTimeUtc)) < 600000, found.enqueuedTimeUtc);
  }
  await within('close', device.close());
  await within('close', client.close());
}

// One case for both: readers of feedback share it, and would take it from each other.
test('service.amqp.node.feedback', async () => {
  for (const transport of [Amqp, AmqpWs]) await feedback(transport);
});

both('refused', async (transport) => {
  // A policy of devices may not send commands.
  let refused;
  const attempt = async () => {
    const client = await service(transport, 'device');
    await client.send((await newDevice('js-svc-no')).deviceId, message('x'));
  };
  await within('send', attempt()).catch((error) => {
    refused = error;
  });
  assert(refused && refused.name === 'UnauthorizedError', `${refused && refused.name}: ${refused}`);
});

main();
