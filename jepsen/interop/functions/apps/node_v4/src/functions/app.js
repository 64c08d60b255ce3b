// A function app in the Node v4 model, as one writes it for the cloud: does what `python_v2/function_app.py` does.
const fs = require('node:fs');
const { app, input, output, trigger } = require('@azure/functions');

const { DEVICES } = process.env;
const realtime = { hubName: '%REALTIME_HUB%', connectionStringSetting: 'Realtime' };
const pages = output.generic({ type: 'signalR', ...realtime });
const commands = output.generic({ type: 'command' });
const twins = output.generic({ type: 'twin' });

async function waitAtGate(path) {
  if (fs.existsSync(path)) return;
  fs.writeFileSync(`${path}.new`, String(process.pid));
  fs.renameSync(`${path}.new`, `${path}.pid`);
  while (!fs.existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 50));
}

app.eventHub('events', {
  connection: 'Hub',
  eventHubName: 'messages/events',
  cardinality: 'many',
  retry: { strategy: 'fixedDelay', maxRetryCount: 2, delayInterval: { seconds: 1 } },
  extraOutputs: [pages, commands, twins],
  handler: async (messages, context) => {
    const [said, sent, patched] = [[], [], []];
    const known = context.triggerMetadata;
    for (const [at, body] of messages.entries()) {
      const system = known.systemPropertiesArray[at];
      const device = system['iothub-connection-device-id'];
      if (!device.startsWith(DEVICES)) continue;
      if (body.gate) await waitAtGate(body.gate);
      if (body.fail) {
        fs.appendFileSync(body.fail, `${context.retryContext ? context.retryContext.retryCount : 0}\n`);
        throw new Error(`${device} can't be processed`);
      }
      if (body.say !== undefined) {
        const record = {
          say: body.say,
          device,
          properties: known.propertiesArray[at],
          sequence: known.sequenceNumberArray[at],
          offset: known.offsetArray[at],
          enqueued: known.enqueuedTimeUtcArray[at],
          system: Object.fromEntries(
            Object.entries(system)
              .filter(([name]) => name.startsWith('iothub-'))
              .map(([name, value]) => [name.slice('iothub-'.length), value]),
          ),
        };
        said.push({ target: 'said', arguments: [record] });
      }
      if (body.command !== undefined) sent.push({ deviceId: device, body: body.command });
      if (body.twin !== undefined) {
        patched.push({ deviceId: device, tags: { n: body.twin }, properties: { desired: { n: body.twin } } });
      }
    }
    context.extraOutputs.set(pages, said);
    context.extraOutputs.set(commands, sent);
    context.extraOutputs.set(twins, patched);
  },
});

app.http('hello', {
  methods: ['GET', 'POST'],
  authLevel: 'function',
  route: 'hello/{name}',
  handler: async (request) => ({
    status: 201,
    headers: { 'x-mark': '1' },
    jsonBody: {
      name: request.params.name,
      query: Object.fromEntries(request.query),
      body: await request.text(),
    },
  }),
});

const info = input.generic({ type: 'signalRConnectionInfo', userId: '{query.user}', ...realtime });
app.http('negotiate', {
  methods: ['POST'],
  authLevel: 'anonymous',
  extraInputs: [info],
  handler: (request, context) => {
    const given = context.extraInputs.get(info);
    return { body: typeof given === 'string' ? given : JSON.stringify(given) };
  },
});

app.timer('tick', {
  schedule: '*/2 * * * * *',
  useMonitor: false,
  return: pages,
  handler: (timer) => ({ target: 'tick', arguments: [timer.isPastDue] }),
});

app.eventGrid('lifecycle', {
  return: pages,
  handler: (event) => ({ target: 'lifecycle', arguments: [event.eventType, event.data] }),
});

app.generic('add', {
  trigger: trigger.generic({
    type: 'signalRTrigger',
    category: 'messages',
    event: 'add',
    parameterNames: ['a', 'b'],
    ...realtime,
  }),
  handler: (call) => {
    const [first, second] = (typeof call === 'string' ? JSON.parse(call) : call).Arguments;
    return first + second;
  },
});
