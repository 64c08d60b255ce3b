// Clients of `@microsoft/signalr`, and the service side of a realtime hub: tokens and REST as management SDKs
// make them. Used by the files that drive that package.
'use strict';

const { createHmac, randomBytes } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const signalr = require('@microsoft/signalr');
const { MessagePackHubProtocol } = require('@microsoft/signalr-protocol-msgpack');
const { Inbox, runner, within } = require('./kit');

const PROTOCOLS = { json: signalr.JsonHubProtocol, msgpack: MessagePackHubProtocol };
const TRANSPORTS = {
  ws: signalr.HttpTransportType.WebSockets,
  sse: signalr.HttpTransportType.ServerSentEvents,
  poll: signalr.HttpTransportType.LongPolling,
};
const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const fresh = (prefix) => `${prefix}${randomBytes(4).toString('hex')}`;

/// Tokens and REST of one node's realtime hubs, from its connection string.
class Service {
  constructor(text) {
    const parts = Object.fromEntries(
      text
        .split(';')
        .filter(Boolean)
        .map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)]),
    );
    this.base = parts.Endpoint.replace(/\/$/, '') + (parts.Port ? `:${parts.Port}` : '');
    this.key = parts.AccessKey;
  }

  /// The service of a node, by the file that it writes for clients.
  static async of(node = 0) {
    const { contexts } = await runner('info');
    return new Service(JSON.parse(fs.readFileSync(path.join(contexts[node], 'hub.json'), 'utf8')).realtime);
  }

  token(audience, claims = {}, key = this.key) {
    const now = Math.floor(Date.now() / 1000);
    const head = base64({ alg: 'HS256', typ: 'JWT' });
    const body = `${head}.${base64({ aud: audience, iat: now, nbf: now, exp: now + 3600, ...claims })}`;
    return `${body}.${createHmac('sha256', key).update(body).digest('base64url')}`;
  }

  url(hub) {
    return `${this.base}/client/?hub=${hub}`;
  }

  clientToken(hub, user) {
    return this.token(this.url(hub), user ? { nameid: user } : {});
  }

  /// One REST request. Gives the status.
  async rest(method, where, body, token) {
    const url = `${this.base}/api/${where}`;
    const answer = await fetch(`${url}${url.includes('?') ? '&' : '?'}api-version=2022-06-01`, {
      method,
      headers: {
        Authorization: `Bearer ${token || this.token(url.split('?')[0])}`,
        ...(body ? { 'Content-Type': 'application/json' } : {}),
      },
      body: body && JSON.stringify(body),
    });
    await answer.arrayBuffer();
    return answer.status;
  }

  /// A started client with an inbox of the arguments of `target`.
  async client(hub, { user, transport, protocol = 'json', target = 'news', ...more } = {}) {
    const token = this.clientToken(hub, user);
    return started(this.url(hub), { transport, protocol, target, token, ...more });
  }
}

async function started(url, { transport, protocol = 'json', target, token, adapt = (builder) => builder } = {}) {
  const options = token ? { transport, accessTokenFactory: () => token } : { transport };
  const builder = new signalr.HubConnectionBuilder()
    .withUrl(url, options)
    .withHubProtocol(new PROTOCOLS[protocol]())
    .configureLogging(signalr.LogLevel.Warning);
  const connection = adapt(builder).build();
  const inbox = new Inbox();
  connection.on(target, (...args) => inbox.put(args));
  const closed = new Inbox();
  connection.onclose((error) => closed.put(error));
  await within('start', connection.start());
  return { connection, inbox, closed };
}

module.exports = { PROTOCOLS, Service, TRANSPORTS, fresh, signalr, started };
