// Making clients of `azure-iot-device` and listening to what they are sent. Used by the files that drive that SDK.
'use strict';

const { Client, ModuleClient, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { Http } = require('azure-iot-device-http');
const { Inbox, assert, invoke, patchDesired, sendCommand, within } = require('./kit');

const TRANSPORTS = { mqtt: Mqtt, ws: MqttWs };

/// A client of an identity that the runner has registered.
function client(identity, transport = Mqtt) {
  const kind = identity.moduleId ? ModuleClient : Client;
  return kind.fromConnectionString(identity.connectionString, transport);
}

async function opened(identity, transport = Mqtt) {
  const device = client(identity, transport);
  await within('open', device.open());
  return device;
}

/// Subscribes to commands, the method `echo` and desired changes.
async function listen(device) {
  const inboxes = { commands: new Inbox(), methods: new Inbox(), patches: new Inbox() };
  device.on('message', (message) => {
    inboxes.commands.put(message);
    device.complete(message, () => {});
  });
  device.onDeviceMethod('echo', (request, response) => {
    inboxes.methods.put(request);
    response.send(200, { echo: request.payload }, () => {});
  });
  inboxes.twin = await within('getTwin', device.getTwin());
  inboxes.twin.on('properties.desired', inboxes.patches.put);
  // The SDK subscribes without telling when it is done: a patch that arrives says so.
  return inboxes;
}

/// A command, a method call and a desired change reach the device: its subscriptions live.
async function checkReachable(identity, inboxes, mark) {
  const id = identity.deviceId;
  await sendCommand(id, `command ${mark}`);
  assert.strictEqual((await inboxes.commands.next(`command ${mark}`)).data.toString(), `command ${mark}`);
  const answer = await invoke(id, 'echo', { mark }, { connect: 20 });
  assert.deepStrictEqual(answer, { status: 200, body: { status: 200, payload: { echo: { mark } } } });
  await inboxes.methods.next('method request');
  const version = await patchDesired(id, { mark });
  for (;;) {
    // What `getTwin` brought is told as a change as well.
    const patch = await inboxes.patches.next(`desired change ${mark}`);
    if (patch.$version < version) continue;
    assert.deepStrictEqual([patch.mark, patch.$version], [mark, version]);
    return;
  }
}

module.exports = {
  Client,
  Http,
  Message,
  ModuleClient,
  Mqtt,
  MqttWs,
  TRANSPORTS,
  checkReachable,
  client,
  listen,
  opened,
};
