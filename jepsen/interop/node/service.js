// `azure-iothub` (Node), REST part: registry, modules, bulk, statistics, twins, methods, query.
//
// Sending commands and receiving feedback is AMQP: `service_amqp.js`. Purging a queue it does not know.
'use strict';

const { randomBytes } = require('node:crypto');
const { Client, Registry } = require('azure-iothub');
const { assert, hub, main, newDevice, test, within } = require('./kit');
const { opened } = require('./kit_device');

const KEY = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=';
const registryOf = (policy = 'iothubowner') => Registry.fromConnectionString(hub().connectionStrings[policy]);
const fresh = (prefix) => `${prefix}-${randomBytes(4).toString('hex')}`;

/// The call must fail with an error of this name.
async function refused(name, promise) {
  let found;
  await within(name, promise).catch((error) => {
    found = error;
  });
  assert(found, `succeeded, wanted ${name}`);
  assert.strictEqual(found.name, name, found.message);
}

test('service.node.devices', async () => {
  const registry = registryOf();
  const deviceId = fresh('js-svc');
  const made = (await registry.create({ deviceId, status: 'enabled', statusReason: 'new' })).responseBody;
  assert.deepStrictEqual(
    [made.deviceId, made.status, made.statusReason, made.connectionState],
    [deviceId, 'enabled', 'new', 'Disconnected'],
  );
  const keys = made.authentication.symmetricKey;
  assert(
    keys.primaryKey &&
      keys.secondaryKey &&
      keys.primaryKey !== keys.secondaryKey &&
      made.etag &&
      made.generationId,
  );
  await refused('DeviceAlreadyExistsError', registry.create({ deviceId }));
  assert.strictEqual((await registry.get(deviceId)).responseBody.etag, made.etag);
  assert(
    (await registry.list()).responseBody.some((device) => device.deviceId === deviceId),
    'not in the list',
  );
  const changed = (await registry.update({ ...made, status: 'disabled' })).responseBody;
  assert.deepStrictEqual([changed.status, changed.generationId], ['disabled', made.generationId]);
  await registry.delete(deviceId);
  await refused('DeviceNotFoundError', registry.get(deviceId));
});

test('service.node.etags', async () => {
  const registry = registryOf();
  const deviceId = fresh('js-svc-etag');
  // Devices are always updated by `"*"` in this SDK; twins and modules carry an etag.
  const first = (await registry.create({ deviceId })).responseBody;
  const second = (await registry.update({ ...first, statusReason: 'a' })).responseBody;
  assert.notStrictEqual(second.etag, first.etag);
  const module = (await registry.addModule({ deviceId, moduleId: 'm' })).responseBody;
  await registry.updateModule({ ...module, managedBy: 'a' }, false);
  await refused('InvalidEtagError', registry.updateModule({ ...module, managedBy: 'b' }, false));
  // Given a module, this call of the SDK has no promise.
  await refused(
    'InvalidEtagError',
    new Promise((resolve, reject) => {
      registry.removeModule(module, (error) => (error ? reject(error) : resolve()));
    }),
  );
  const stale = { deviceId, properties: { desired: { a: 1 } } };
  const twin = (await registry.getTwin(deviceId)).responseBody;
  const changed = (await registry.updateTwin(deviceId, stale, twin.etag)).responseBody;
  assert.notStrictEqual(changed.etag, twin.etag);
  await refused('InvalidEtagError', registry.updateTwin(deviceId, stale, twin.etag));
  assert.strictEqual((await registry.getTwin(deviceId)).responseBody.etag, changed.etag);
  await registry.delete(deviceId);
});

test('service.node.modules', async () => {
  const registry = registryOf();
  const deviceId = fresh('js-svc-mod');
  await registry.create({ deviceId });
  const made = (await registry.addModule({ deviceId, moduleId: 'm1', managedBy: 'me' })).responseBody;
  assert.deepStrictEqual([made.deviceId, made.moduleId, made.managedBy], [deviceId, 'm1', 'me']);
  await registry.addModule({ deviceId, moduleId: 'm2' });
  const listed = (await registry.getModulesOnDevice(deviceId)).responseBody
    .map((module) => module.moduleId)
    .sort();
  assert.deepStrictEqual(listed, ['m1', 'm2']);
  const changed = (await registry.updateModule({ ...made, managedBy: 'you' }, true)).responseBody;
  assert.strictEqual(changed.managedBy, 'you');
  const twin = (await registry.getModuleTwin(deviceId, 'm2')).responseBody;
  const patched = (
    await registry.updateModuleTwin(deviceId, 'm2', { properties: { desired: { a: 1 } } }, twin.etag)
  ).responseBody;
  assert.strictEqual(patched.properties.desired.a, 1);
  await registry.removeModule(deviceId, 'm1');
  assert.deepStrictEqual(
    (await registry.getModulesOnDevice(deviceId)).responseBody.map((module) => module.moduleId),
    ['m2'],
  );
  await registry.delete(deviceId);
});

test('service.node.bulk', async () => {
  const registry = registryOf();
  const ids = [...Array(20).keys()].map(() => fresh('js-svc-bulk'));
  const devices = ids.map((deviceId) => ({ deviceId, status: 'enabled' }));
  const result = (await registry.addDevices(devices)).responseBody;
  assert.deepStrictEqual([result.isSuccessful, result.errors], [true, []]);
  await registry.updateDevices(
    devices.map((device) => ({ ...device, status: 'disabled' })),
    true,
  );
  assert.strictEqual((await registry.get(ids[7])).responseBody.status, 'disabled');
  const removed = (
    await registry.removeDevices(
      ids.map((deviceId) => ({ deviceId })),
      true,
    )
  ).responseBody;
  assert.strictEqual(removed.isSuccessful, true);
  await refused('DeviceNotFoundError', registry.get(ids[19]));
});

test('service.node.statistics', async () => {
  const registry = registryOf();
  await registry.create({ deviceId: fresh('js-svc-stat') });
  const found = (await registry.getRegistryStatistics()).responseBody;
  assert(
    found.totalDeviceCount >= 1 &&
      found.enabledDeviceCount + found.disabledDeviceCount === found.totalDeviceCount,
    JSON.stringify(found),
  );
});

test('service.node.twins', async () => {
  const registry = registryOf();
  const deviceId = fresh('js-svc-twin');
  await registry.create({ deviceId });
  const twin = (await registry.getTwin(deviceId)).responseBody;
  assert.deepStrictEqual(
    [twin.version, twin.properties.desired.$version, twin.properties.reported.$version],
    [1, 1, 1],
  );
  // The twin's own update sends its etag.
  const changed = (
    await twin.update({ tags: { site: { floor: 1, room: 'a' } }, properties: { desired: { rate: 5 } } })
  ).result;
  assert.deepStrictEqual(
    [changed.tags, changed.properties.desired.rate],
    [{ site: { floor: 1, room: 'a' } }, 5],
  );
  const less = (await registry.updateTwin(deviceId, { tags: { site: { room: null } } }, '*')).responseBody;
  assert.deepStrictEqual(less.tags, { site: { floor: 1 } });
  assert.strictEqual(less.properties.desired.rate, 5);
  await registry.delete(deviceId);
  await refused('DeviceNotFoundError', registry.getTwin(deviceId));
});

test('service.node.methods', async () => {
  const service = Client.fromConnectionString(hub().connectionStrings.service);
  const identity = await newDevice('js-svc-method');
  await refused(
    'DeviceNotFoundError',
    service.invokeDeviceMethod('nobody-here', { methodName: 'm', payload: null }),
  );
  const offline = { methodName: 'm', payload: null, responseTimeoutInSeconds: 5 };
  let away;
  await within('offline', service.invokeDeviceMethod(identity.deviceId, offline)).catch((error) => {
    away = error;
  });
  assert(away && away.response.statusCode === 404, `${away}`);
  const device = await opened(identity);
  device.onDeviceMethod('do', (request, response) => response.send(201, { got: request.payload }, () => {}));
  device.onDeviceMethod('hang', () => {});
  const call = {
    methodName: 'do',
    payload: { a: 1 },
    responseTimeoutInSeconds: 20,
    connectTimeoutInSeconds: 20,
  };
  const { result } = await within('invoke', service.invokeDeviceMethod(identity.deviceId, call));
  assert.deepStrictEqual([result.status, result.payload], [201, { got: { a: 1 } }]);
  // The SDK gives the HTTP call exactly the sum of both timeouts: the hub must answer before that.
  let late;
  await service
    .invokeDeviceMethod(identity.deviceId, {
      methodName: 'hang',
      payload: null,
      responseTimeoutInSeconds: 5,
      connectTimeoutInSeconds: 0,
    })
    .catch((error) => {
      late = error;
    });
  assert(late && late.response && late.response.statusCode === 504, `no 504 of the hub: ${late}`);
  await within('close', device.close());
});

test('service.node.query', async () => {
  const registry = registryOf();
  const mark = fresh('mark');
  const ids = [...Array(5).keys()].map(() => fresh('js-svc-query'));
  for (const [n, deviceId] of ids.entries()) {
    await registry.create({ deviceId });
    await registry.updateTwin(
      deviceId,
      { tags: { mark, n }, properties: { desired: { rate: n * 10 } } },
      '*',
    );
  }
  const found = async (condition, page) => {
    const query = registry.createQuery(
      `SELECT * FROM devices WHERE tags.mark = '${mark}' AND ${condition}`,
      page,
    );
    const rows = [];
    let pages = 0;
    while (query.hasMoreResults && pages < 20) {
      rows.push(...(await within('page', query.nextAsTwin())).result);
      pages += 1;
    }
    assert(pages < 20, 'pages without end');
    return rows.map((twin) => ids.indexOf(twin.deviceId)).sort();
  };
  assert.deepStrictEqual(await found('tags.n >= 3'), [3, 4]);
  assert.deepStrictEqual(await found('properties.desired.rate IN [0, 20]'), [0, 2]);
  assert.deepStrictEqual(await found('tags.n >= 0', 2), [0, 1, 2, 3, 4]);
  assert.deepStrictEqual(await found("tags.mark = 'none'"), []);
});

test('service.node.refused', async () => {
  const text = hub().connectionStrings.iothubowner.replace(/SharedAccessKey=.*/, `SharedAccessKey=${KEY}`);
  await refused('UnauthorizedError', Registry.fromConnectionString(text).list());
  const identity = await newDevice('js-svc-policy');
  await refused('UnauthorizedError', registryOf('device').get(identity.deviceId));
  await registryOf('registryRead').get(identity.deviceId);
});

main();
