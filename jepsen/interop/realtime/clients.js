// `@microsoft/signalr` (Node) against realtime hubs: every transport with every protocol, sending by REST,
// groups, wrong tokens, closing, three nodes.
'use strict';

const { assert, main, test, until, within, runner } = require('../node/kit');
const { PROTOCOLS, Service, TRANSPORTS, fresh, started } = require('../node/kit_realtime');

const TIERS = 'tiers';
const message = (...args) => ({ target: 'news', arguments: args });
const VALUES = [1, -2.5, 'ü€', null, true, [1, { a: 'b' }]];

async function sent(service, where, ...args) {
  assert.strictEqual(await service.rest('POST', where, message(...args)), 202, where);
}

/// Sends a mark to everybody until this client has it, and forgets what came before: from then on it is a
/// member for all nodes.
async function reached(service, hub, client) {
  const mark = fresh('mark');
  let found = false;
  await until('a client is reached', async () => {
    await sent(service, `hubs/${hub}/:send`, mark);
    await new Promise((resolve) => setTimeout(resolve, 50));
    while (!client.inbox.empty) found = (await client.inbox.next('mark'))[0] === mark || found;
    return found;
  });
}

for (const [via, transport] of Object.entries(TRANSPORTS)) {
  for (const protocol of Object.keys(PROTOCOLS)) {
    // The package refuses binary over server-sent events.
    if (via === 'sse' && protocol === 'msgpack') continue;
    test(
      `realtime.node.${via}.${protocol}`,
      async () => {
        const service = await Service.of();
        const [hub, user] = [fresh('h'), fresh('user')];
        const client = await service.client(hub, { user, transport, protocol });
        const other = await service.client(hub, { transport, protocol });
        const id = client.connection.connectionId;
        const next = (who = client) => who.inbox.next('news');
        await sent(service, `hubs/${hub}/:send`, ...VALUES);
        assert.deepStrictEqual(await next(), VALUES);
        assert.deepStrictEqual(await next(other), VALUES);
        await sent(service, `hubs/${hub}/users/${user}/:send`, 'user');
        await sent(service, `hubs/${hub}/connections/${id}/:send`, 'connection');
        assert.deepStrictEqual([await next(), await next()], [['user'], ['connection']]);
        assert.strictEqual(await service.rest('PUT', `hubs/${hub}/groups/g/connections/${id}`), 200);
        await sent(service, `hubs/${hub}/groups/g/:send`, 'group');
        assert.deepStrictEqual(await next(), ['group']);
        assert.strictEqual(await service.rest('DELETE', `hubs/${hub}/groups/g/connections/${id}`), 200);
        await sent(service, `hubs/${hub}/groups/g/:send`, 'nobody');
        // What everybody gets comes after what was sent before it: nothing else came.
        await sent(service, `hubs/${hub}/:send?excluded=${other.connection.connectionId}`, 'not the other');
        await sent(service, `hubs/${hub}/:send`, 'end');
        assert.deepStrictEqual([await next(), await next()], [['not the other'], ['end']]);
        assert.deepStrictEqual(await next(other), ['end']);
        await within('stop', client.connection.stop());
        await until('its connection is gone', async () => {
          return (await service.rest('HEAD', `hubs/${hub}/connections/${id}`)) === 404;
        });
        await within('stop', other.connection.stop());
      },
      TIERS,
    );
  }
}

test(
  'realtime.node.users_and_groups',
  async () => {
    const service = await Service.of();
    const [hub, user] = [fresh('h'), fresh('user')];
    const at = `hubs/${hub}`;
    const exists = (where) => service.rest('HEAD', `${at}/${where}`);
    assert.deepStrictEqual([await exists(`users/${user}`), await exists('groups/g')], [404, 404]);
    assert.strictEqual(await service.rest('PUT', `${at}/users/${user}/groups/g`), 200);
    // Who comes later is a member as well.
    const client = await service.client(hub, { user });
    assert.deepStrictEqual(
      [await exists(`users/${user}`), await exists(`users/${user}/groups/g`), await exists('groups/g')],
      [200, 200, 200],
    );
    await sent(service, `${at}/groups/g/:send`, 'as a member');
    assert.deepStrictEqual(await client.inbox.next('group'), ['as a member']);
    assert.strictEqual(await service.rest('DELETE', `${at}/users/${user}/groups/g`), 204);
    assert.strictEqual(await exists(`users/${user}/groups/g`), 404);
    await sent(service, `${at}/groups/g/:send`, 'nobody');
    await sent(service, `${at}/:send`, 'end');
    assert.deepStrictEqual(await client.inbox.next('end'), ['end']);
    // Membership that ends by itself: the subject is time.
    assert.strictEqual(await service.rest('PUT', `${at}/users/${user}/groups/short?ttl=1`), 200);
    assert.strictEqual(await exists(`users/${user}/groups/short`), 200);
    await until('the membership is over', async () => (await exists(`users/${user}/groups/short`)) === 404);
  },
  TIERS,
);

test(
  'realtime.node.closed_by_rest',
  async () => {
    const service = await Service.of();
    const hub = fresh('h');
    const [one, two] = [await service.client(hub, { user: 'u' }), await service.client(hub)];
    const id = two.connection.connectionId;
    assert.strictEqual(await service.rest('DELETE', `hubs/${hub}/connections/${id}?reason=enough`), 200);
    assert.match(String(await two.closed.next('closed')), /enough/);
    assert.strictEqual(await service.rest('POST', `hubs/${hub}/users/u/:closeConnections`), 204);
    await one.closed.next('closed');
  },
  TIERS,
);

test(
  'realtime.node.refused',
  async () => {
    const service = await Service.of();
    const hub = fresh('h');
    const now = Math.floor(Date.now() / 1000);
    const url = service.url(hub);
    const wrong = {
      'another key': service.token(url, {}, 'x'.repeat(44)),
      'another hub': service.clientToken(`${hub}x`),
      'it is over': service.token(url, { exp: now - 3600 }),
      'no token at all': undefined,
    };
    for (const [what, token] of Object.entries(wrong)) {
      let error;
      await started(url, { target: 'news', token }).catch((found) => {
        error = found;
      });
      assert.match(String(error), /401/, what);
    }
    const send = (token) => service.rest('POST', `hubs/${hub}/:send`, message(1), token);
    const rest = `${service.base}/api/hubs/${hub}/:send`;
    assert.strictEqual(await send(service.token(rest, {}, 'x'.repeat(44))), 401);
    assert.strictEqual(await send(service.token(rest, { exp: now - 3600 })), 401);
    assert.strictEqual(await send(service.token(rest)), 202);
  },
  TIERS,
);

test(
  'realtime.cluster.fan_out',
  async () => {
    const { nodes } = await runner('info');
    const hub = fresh('h');
    const all = [];
    for (let node = 0; node < nodes; node += 1) {
      const service = await Service.of(node);
      all.push({ service, client: await service.client(hub, { user: `u${node}` }) });
    }
    for (const { client } of all) for (const { service } of all) await reached(service, hub, client);
    for (const [node, { service }] of all.entries()) {
      // A user on another node, by a group that this node fills.
      const user = `u${(node + 1) % nodes}`;
      assert.strictEqual(await service.rest('PUT', `hubs/${hub}/users/${user}/groups/g${node}`), 200);
    }
    for (const { client } of all) while (!client.inbox.empty) await client.inbox.next('left');
    for (const [node, { service }] of all.entries()) {
      const there = all[(node + 1) % nodes].client;
      const want = fresh('group');
      await until('a group on another node is reached', async () => {
        await sent(service, `hubs/${hub}/groups/g${node}/:send`, want);
        await new Promise((resolve) => setTimeout(resolve, 50));
        while (!there.inbox.empty) if ((await there.inbox.next('group'))[0] === want) return true;
        return false;
      });
      const id = there.connection.connectionId;
      assert.strictEqual(await service.rest('HEAD', `hubs/${hub}/connections/${id}`), 200);
    }
  },
  'tiers-cluster',
);

main();
