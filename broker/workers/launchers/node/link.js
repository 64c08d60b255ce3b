'use strict';
// The stream to the node: reads its messages, hands them to the app, writes what comes back.
//
// Messages are written in the order in which they were made, so an invocation's log lines are ahead of
// its response. Lines that the node doesn't take as fast as they are written are dropped beyond a bound,
// and counted.

const path = require('path');

const { App, capabilities, failure, success } = require('./app');
const { Core } = require('./core');

const METHOD = '/AzureFunctionsRpcMessages.FunctionRpc/EventStream';
// Lines that wait to be sent. A flood of logs must not become a flood of memory.
const MOST_LINES = 10000;
// A line longer than this is cut by the node anyway.
const LONGEST_LINE = 64 * 1024;
// Room that a message's frame takes beside its content.
const MARGIN = 4096;

const LEVELS = {
  trace: 'Trace',
  debug: 'Debug',
  information: 'Information',
  warning: 'Warning',
  error: 'Error',
  critical: 'Critical',
};

class Link {
  constructor(options) {
    this.options = options;
    this.waiting = [];
    this.lines = 0;
    this.dropped = 0;
    this.core = new Core(this);
    this.app = new App(this, this.core, options);
  }

  start(secret) {
    // Found in the node's own packages, not in the app's.
    const own = (name) => require(path.join(this.options.packages, ...name.split('/')));
    const grpc = own('@grpc/grpc-js');
    const loader = own('@grpc/proto-loader');
    const definition = loader.loadSync(this.options.protocol, {
      longs: Number,
      enums: String,
      defaults: true,
      oneofs: true,
    });
    const method = definition['AzureFunctionsRpcMessages.FunctionRpc'].EventStream;
    const client = new grpc.Client(this.options.address, grpc.credentials.createInsecure(), {
      'grpc.max_send_message_length': this.options.longest,
      'grpc.max_receive_message_length': this.options.longest,
      // An app's proxy is not for the way to its own node.
      'grpc.enable_http_proxy': 0,
    });
    const metadata = new grpc.Metadata();
    metadata.set('fleetline-worker', this.options.workerId);
    metadata.set('fleetline-secret', secret);
    const encode = (message) => this.encode(method, message);
    this.stream = client.makeBidiStreamRequest(METHOD, encode, method.responseDeserialize, metadata);
    this.stream.on('data', (message) => this.receive(message));
    this.stream.on('error', (error) => {
      console.error(`worker: the stream ended: ${error.message}`);
      process.exit(1);
    });
    this.stream.on('end', () => process.exit(0));
    this.stream.on('drain', () => this.flush());
    this.send({ startStream: { workerId: this.options.workerId } });
  }

  /** The bytes of a message, or of what replaces a result that is too large for the stream. */
  encode(method, message) {
    const bytes = method.requestSerialize(message);
    const limit = this.options.longest - MARGIN;
    if (!message.invocationResponse || bytes.length <= limit) return bytes;
    const error = new RangeError(`the result has ${bytes.length} bytes, allowed are ${limit}`);
    const { invocationId } = message.invocationResponse;
    return method.requestSerialize({ invocationResponse: { invocationId, result: failure(error) } });
  }

  send(message) {
    this.waiting.push(message);
    this.flush();
  }

  flush() {
    while (this.waiting.length > 0 && !this.stream.writableNeedDrain) {
      const message = this.waiting.shift();
      if (message.rpcLog) this.lines -= 1;
      this.stream.write(message);
    }
    if (this.dropped > 0 && this.lines < MOST_LINES / 2) {
      const dropped = this.dropped;
      this.dropped = 0;
      this.log('warning', 'system', `${dropped} log lines were dropped: more were written than could be sent`);
    }
  }

  /** Takes a line of an invocation, or of the worker when there is none. */
  log(level, category, message, invocationId = '', name = 'worker') {
    if (this.lines >= MOST_LINES) {
      this.dropped += 1;
      return;
    }
    this.lines += 1;
    const rpcLog = {
      level: LEVELS[level] || 'Information',
      message: String(message).slice(0, LONGEST_LINE),
      category: name,
      invocationId,
      logCategory: category === 'system' ? 'System' : 'User',
    };
    this.send({ rpcLog });
  }

  /** Says why, and ends the process at once: standard error is written before `exit`, the stream isn't. */
  fail(reason) {
    for (const line of reason.split('\n')) console.error(`LanguageWorkerConsoleLog ${line}`);
    process.exit(1);
  }

  async receive(message) {
    const { requestId, content } = message;
    const handle = this[`on_${content}`];
    if (!handle) return; // §6.1: "Unknown messages are ignored by workers."
    try {
      const reply = await handle.call(this, message[content]);
      if (reply) this.send({ requestId, ...reply });
    } catch (error) {
      // The app's handlers answer failures themselves: this is a fault of ours.
      this.log('error', 'system', `the message ${content} was not handled: ${error && error.stack}`);
    }
  }

  // What the node asks for. Each handler returns the message to send.

  async on_workerInitRequest(request) {
    this.core.hostVersion = request.hostVersion;
    const workerInitResponse = {
      capabilities: {},
      workerMetadata: { runtimeName: 'node', runtimeVersion: process.versions.node, workerVersion: this.core.version },
      result: success(),
    };
    try {
      await this.app.load(request.functionAppDirectory);
      workerInitResponse.capabilities = await this.core.capabilities(capabilities());
    } catch (error) {
      workerInitResponse.result = failure(error);
    }
    return { workerInitResponse };
  }

  async on_functionsMetadataRequest() {
    return { functionMetadataResponse: { functionMetadataResults: this.app.metadata(), result: success() } };
  }

  async on_functionLoadRequest(request) {
    const known = this.app.functions.has(request.functionId);
    const result = known ? success() : failure(new Error(`there is no function ${request.functionId}`));
    return { functionLoadResponse: { functionId: request.functionId, result } };
  }

  async on_invocationRequest(request) {
    return { invocationResponse: await this.app.invoke(request) };
  }

  async on_workerStatusRequest() {
    return { workerStatusResponse: {} };
  }

  async on_workerTerminate() {
    await this.app.terminate();
    process.exit(0);
  }
}

module.exports = { Link };
