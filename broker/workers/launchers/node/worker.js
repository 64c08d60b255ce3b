'use strict';
// Entry of the Node worker: `node worker.js --functions-uri http://H:P/ --functions-worker-id W ...`.
//
// Started by the node with the app's folder as working directory. The first line of standard input is
// the secret that lets this process in at the node; the pipe then stays open as the life line: when it
// ends, the node is gone, and so is this process, whatever its functions are doing.
//
// Runs unmodified `@azure/functions` 4 (the v4 model) with `@grpc/grpc-js`; `core.js` is the module
// `@azure/functions-core` that the package expects from its host.

const fs = require('fs');
const path = require('path');
const { Worker } = require('worker_threads');

const { Link } = require('./link');

/** The secret, a line of its own, read byte by byte so that nothing after it is lost. */
function readSecret() {
  const line = [];
  const byte = Buffer.alloc(1);
  while (line.length < 256 && fs.readSync(0, byte, 0, 1, null) === 1 && byte[0] !== 10) line.push(byte[0]);
  return Buffer.from(line).toString('latin1');
}

/** Ends the process when the pipe closes, from a thread: a function may keep the main one busy. */
function watchLifeLine() {
  const watch = `
    const pipe = new (require('net').Socket)({ fd: 0, readable: true, writable: false });
    const end = () => process.kill(process.pid, 'SIGKILL');
    pipe.on('close', end).on('error', end).on('end', end).resume();
  `;
  const limits = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 4 };
  new Worker(watch, { eval: true, resourceLimits: limits, env: {}, execArgv: [] }).unref();
}

function parseArguments(argv) {
  const values = {};
  for (let i = 0; i + 1 < argv.length; i += 2) values[argv[i].replace(/^--/, '')] = argv[i + 1];
  return {
    address: new URL(values['functions-uri']).host,
    workerId: values['functions-worker-id'],
    longest: Number(values['functions-grpc-max-message-length']),
    packages: process.env.FLEETLINE_NODE_MODULES,
    protocol: path.join(__dirname, 'worker.proto'),
  };
}

function main() {
  process.umask(0o077);
  const secret = readSecret();
  const options = parseArguments(process.argv.slice(2));
  delete process.env.FLEETLINE_NODE_MODULES;
  const link = new Link(options);
  // An app that throws outside of its functions can't go on in a known state.
  process.on('uncaughtException', (error) => {
    link.fail(`uncaught exception: ${(error && error.stack) || error}`);
  });
  link.start(secret);
  watchLifeLine();
}

main();
