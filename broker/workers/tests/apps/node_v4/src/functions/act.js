const { app, output, trigger } = require('@azure/functions');

const actions = {
  boom: () => {
    throw new RangeError('the boiler is too hot');
  },
  log: (context) => {
    context.warn('watch %d', 7);
    console.log('printed');
    console.error('to stderr');
    return 'logged';
  },
  about: () => ({
    uid: process.getuid(),
    groups: process.getgroups(),
    cwd: process.cwd(),
    umask: process.umask(),
    environment: process.env,
    pid: process.pid,
  }),
  hang: () => {
    for (;;);
  },
  wait: () => new Promise(() => {}),
  later: () => {
    setTimeout(() => {
      throw new Error('thrown later');
    }, 0);
    return new Promise(() => {});
  },
  eat: async () => {
    const held = [];
    for (;;) {
      held.push(Buffer.alloc(8 << 20, 1));
      await new Promise(setImmediate);
    }
  },
  flood: (context) => {
    for (let number = 0; number < 50000; number += 1) context.log(`line ${number}`);
    return 'flooded';
  },
  die: () => process.exit(3),
  nothing: () => undefined,
  number: () => 7,
  bytes: () => Buffer.from([0, 255]),
  large: () => 'x'.repeat(3 << 20),
};

app.generic('act', {
  trigger: trigger.generic({ type: 'commandTrigger', name: 'command' }),
  return: output.generic({ type: 'answer' }),
  handler: (command, context) => actions[command](context),
});

app.hook.preInvocation((hook) => {
  hook.hookData.seen = hook.inputs.length;
});

app.hook.postInvocation((hook) => {
  if (hook.invocationContext.functionName === 'hooked') hook.result = `${hook.result} and ${hook.hookData.seen} seen`;
});

app.generic('hooked', {
  trigger: trigger.generic({ type: 'commandTrigger', name: 'command' }),
  return: output.generic({ type: 'answer' }),
  handler: () => 'hooked',
});

app.hook.appTerminate(() => console.log('terminate hook ran'));
