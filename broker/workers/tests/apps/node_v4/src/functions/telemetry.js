const { app, output } = require('@azure/functions');

app.http('hello', {
  methods: ['GET', 'POST'],
  authLevel: 'anonymous',
  route: 'hello/{name}',
  handler: async (request, context) => {
    context.log(`hello from ${context.functionName}`);
    return {
      status: 201,
      headers: { 'x-answer': 'yes' },
      cookies: [{ name: 'session', value: 'abc', path: '/', httpOnly: true, sameSite: 'Lax', maxAge: 60 }],
      jsonBody: {
        method: request.method,
        url: request.url,
        name: request.params.name,
        q: request.query.get('q'),
        header: request.headers.get('X-Fleet'),
        body: await request.text(),
      },
    };
  },
});

app.eventHub('oneEvent', {
  connection: 'HUB',
  eventHubName: 'messages/events',
  cardinality: 'one',
  retry: { strategy: 'exponentialBackoff', maxRetryCount: 4, minimumInterval: { seconds: 2 }, maximumInterval: { minutes: 1 } },
  return: output.eventHub({ connection: 'HUB', eventHubName: 'out' }),
  handler: (event, context) => ({
    event,
    device: context.triggerMetadata.systemProperties['iothub-connection-device-id'],
    retry: context.retryContext,
    invocation: context.invocationId,
    trace: context.traceContext.traceParent,
  }),
});

const events = output.eventHub({ connection: 'HUB', eventHubName: 'out' });

app.eventHub('manyEvents', {
  connection: 'HUB',
  eventHubName: 'messages/events',
  cardinality: 'many',
  extraOutputs: [events],
  handler: (messages, context) => {
    const properties = context.triggerMetadata.systemPropertiesArray;
    context.extraOutputs.set(
      events,
      messages.map((message, index) => ({ message, sequence: properties[index].SequenceNumber ?? properties[index].sequenceNumber })),
    );
  },
});

const signalR = output.generic({ type: 'signalR', name: 'messages', hubName: 'fleet' });

app.timer('tick', {
  schedule: '0 */5 * * * *',
  extraOutputs: [signalR],
  handler: (timer, context) => {
    context.extraOutputs.set(signalR, [{ target: 'tick', arguments: [timer.isPastDue, timer.scheduleStatus.next] }]);
  },
});
