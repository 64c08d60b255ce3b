// `@azure/event-hubs` (Node): reading the stream, over TCP (`events.node.tcp.…`) and WebSocket (`events.node.ws.…`).
//
// Properties, a subscription to all partitions, positions, epochs, and who is refused. Other cases send into the same
// hub: each looks at events of its own device only.
'use strict';

const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');
const WebSocket = require('ws');
const { Inbox, assert, hub, main, newDevice, records, test, within } = require('./kit');
const { Message, opened } = require('./kit_device');

const KINDS = { tcp: {}, ws: { webSocketOptions: { webSocket: WebSocket } } };

function both(name, run) {
  for (const [label, options] of Object.entries(KINDS)) test(`events.node.${label}.${name}`, () => run(options));
}

function parts(policy = 'service') {
  const text = hub().connectionStrings[policy];
  return Object.fromEntries(text.split(';').map((part) => part.split(/=(.*)/s).slice(0, 2)));
}

const hubName = () => parts().HostName.split('.')[0];

function clientOf(options, { group = '$Default', policy = 'service', key, name } = {}) {
  const { HostName, SharedAccessKeyName, SharedAccessKey } = parts(policy);
  const text = `Endpoint=sb://${HostName}/;SharedAccessKeyName=${SharedAccessKeyName};SharedAccessKey=${key || SharedAccessKey}`;
  return new EventHubConsumerClient(group, text, name || hubName(), {
    ...options,
    retryOptions: { maxRetries: 0 },
  });
}

/// Subscribes; gives inboxes of the events of one device and of errors.
function reading(client, device, options, partition) {
  const events = new Inbox();
  const errors = new Inbox();
  const handlers = {
    processEvents: async (found) => {
      for (const event of found)
        if (event.systemProperties['iothub-connection-device-id'] === device) events.put(event);
    },
    processError: async (error) => errors.put(error),
  };
  const given = { maxWaitTimeInSeconds: 1, ...options };
  const subscription =
    partition === undefined ? client.subscribe(handlers, given) : client.subscribe(partition, handlers, given);
  const close = async () => {
    await within('close the subscription', subscription.close());
    await within('close the client', client.close());
  };
  return { events, errors, close };
}

async function sent(prefix, ...bodies) {
  const identity = await newDevice(prefix);
  const device = await opened(identity);
  for (const body of bodies) await within('send', device.sendEvent(new Message(body)));
  return { identity, device, found: await records(identity.deviceId, bodies.length) };
}

both('properties', async (options) => {
  const { found } = await sent('js-eh-info', 'a');
  const client = clientOf(options);
  const about = await within('getEventHubProperties', client.getEventHubProperties());
  assert.deepStrictEqual([about.name, about.partitionIds], [hubName(), ['0', '1', '2', '3']]);
  assert(about.createdOn instanceof Date && about.createdOn <= new Date(), String(about.createdOn));
  const id = String(found[0].partition);
  const partition = await within('getPartitionProperties', client.getPartitionProperties(id));
  assert.deepStrictEqual([partition.partitionId, partition.isEmpty], [id, false]);
  assert(partition.lastEnqueuedSequenceNumber >= found[0].offset, JSON.stringify(partition));
  await within('close', client.close());
});

both('subscribe', async (options) => {
  // All partitions from their beginning, and on as events come.
  const { identity, device } = await sent('js-eh-sub', '"one"', '"two"');
  const reader = reading(clientOf(options), identity.deviceId, { startPosition: earliestEventPosition });
  const next = async () => String((await reader.events.next('event')).body);
  assert.deepStrictEqual([await next(), await next()], ['one', 'two']);
  const message = new Message('"three"');
  message.properties.add('colour', 'blue');
  await within('send', device.sendEvent(message));
  const event = await reader.events.next('a later event');
  assert.deepStrictEqual([event.body, { ...event.properties }], ['three', { colour: 'blue' }]);
  assert.strictEqual(event.partitionKey, identity.deviceId);
  assert.strictEqual(
    event.systemProperties['iothub-connection-auth-generation-id'],
    identity.generationId,
  );
  await reader.close();
  await within('close', device.close());
});

both('positions', async (options) => {
  const { identity, found } = await sent('js-eh-from', '1', '2', '3');
  const id = identity.deviceId;
  const partition = String(found[0].partition);
  for (const [startPosition, wanted] of [
    [{ sequenceNumber: found[1].offset, isInclusive: true }, [2, 3]],
    [{ sequenceNumber: found[1].offset, isInclusive: false }, [3]],
    [{ enqueuedOn: Date.now() - 3600000 }, [1, 2, 3]],
    [{ offset: '-1' }, [1, 2, 3]],
  ]) {
    const reader = reading(clientOf(options), id, { startPosition }, partition);
    for (const body of wanted) assert.strictEqual((await reader.events.next('event')).body, body);
    await reader.close();
  }
});

both('epochs', async (options) => {
  const { identity, device, found } = await sent('js-eh-owner', '1');
  const id = identity.deviceId;
  const partition = String(found[0].partition);
  const owner = (ownerLevel) =>
    reading(
      clientOf(options, { group: `owners-${id}` }),
      id,
      { startPosition: earliestEventPosition, ownerLevel },
      partition,
    );
  const low = owner(1);
  assert.strictEqual((await low.events.next('the first owner')).body, 1);
  const high = owner(2);
  assert.strictEqual((await high.events.next('the second owner')).body, 1);
  assert.strictEqual((await low.errors.next('the loss')).code, 'ReceiverDisconnectedError');
  const late = owner(1);
  assert.strictEqual((await late.errors.next('refusal of a lower one')).code, 'ReceiverDisconnectedError');
  await within('send', device.sendEvent(new Message('2')));
  assert.strictEqual((await high.events.next('the owner reads on')).body, 2);
  for (const reader of [low, late, high]) await reader.close();
  await within('close', device.close());
});

both('refused', async (options) => {
  const wrong = { key: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=' };
  for (const how of [wrong, { policy: 'device' }, { name: 'elsewhere' }]) {
    const client = clientOf(options, how);
    let found;
    await within('getEventHubProperties', client.getEventHubProperties()).then(
      (properties) => assert.fail(`succeeded: ${JSON.stringify(properties)}`),
      (error) => {
        found = error;
      },
    );
    assert(!/no end after/.test(found.message), JSON.stringify(how));
    console.log(JSON.stringify(how), found.code, found.message);
    await within('close', client.close());
  }
});

main();
