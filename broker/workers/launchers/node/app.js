'use strict';
// An app of the v4 model: loads its entry files, says which functions they have registered, calls them.

const fs = require('fs');
const Module = require('module');
const path = require('path');
const { pathToFileURL } = require('url');

// What this worker understands (§6.4).
const capabilities = () => ({
  RawHttpBodyBytes: 'true',
  TypedDataCollection: 'true',
  RpcHttpBodyOnly: 'true',
  RpcHttpTriggerMetadataRemoved: 'true',
  IgnoreEmptyValuedRpcHttpHeaders: 'true',
  UseNullableValueDictionaryForHttp: 'true',
  WorkerStatus: 'true',
  HandlesWorkerTerminateMessage: 'true',
});

const success = () => ({ status: 'Success' });

function failure(error) {
  const isError = error instanceof Error;
  const exception = {
    message: isError ? error.message : String(error),
    stackTrace: (isError && error.stack) || '',
    type: (isError && error.name) || typeof error,
    isUserException: !(isError && error.isAzureFunctionsSystemError),
  };
  return { status: 'Failure', exception };
}

class App {
  constructor(link, core, options) {
    this.link = link;
    this.core = core;
    this.functions = core.functions;
    this.packages = options.packages;
    this.errors = [];
  }

  async load(root) {
    this.root = root;
    this.addPackages();
    this.core.isOpen = true;
    try {
      for (const file of this.entryFiles()) await this.loadFile(file);
    } finally {
      this.core.isOpen = false;
    }
    if (this.functions.size === 0 && this.errors.length > 0) throw this.errors[0].error;
    await this.core.runHooks('appStart', { hookData: {}, appHookData: this.core.appHookData, functionAppDirectory: root });
  }

  /** The node's packages are found when an app brings none of its own. */
  addPackages() {
    process.env.NODE_PATH = [process.env.NODE_PATH, this.packages].filter(Boolean).join(path.delimiter);
    Module._initPaths();
    const own = path.join(this.root, 'node_modules', '@azure', 'functions');
    if (!fs.existsSync(own) && Module.register) {
      const parentURL = pathToFileURL(path.join(this.packages, '..', 'package.json')).href;
      Module.register(pathToFileURL(path.join(__dirname, 'resolve.mjs')).href, { data: { parentURL } });
    }
  }

  entryFiles() {
    const file = path.join(this.root, 'package.json');
    let main = 'index.js';
    if (fs.existsSync(file)) {
      const described = JSON.parse(fs.readFileSync(file, 'utf8'));
      this.isModule = described.type === 'module';
      main = described.main || main;
    }
    const found = expand(this.root, main);
    if (found.length === 0) {
      throw new Error(`no file matches the "main" of package.json: ${main}`);
    }
    return found;
  }

  /** One file that can't be loaded doesn't take the functions of the others along, unless the app asks. */
  async loadFile(file) {
    const name = path.relative(this.root, file).split(path.sep).join('/');
    try {
      if (file.endsWith('.mjs') || (this.isModule && !file.endsWith('.cjs'))) {
        await import(pathToFileURL(file).href);
      } else {
        require(file);
      }
    } catch (error) {
      const wrapped = error instanceof Error ? error : new Error(String(error));
      wrapped.message = `the worker was unable to load "${name}": ${wrapped.message}`;
      if (/^(1|true)$/i.test(process.env.FUNCTIONS_NODE_BLOCK_ON_ENTRY_POINT_ERROR || '')) throw wrapped;
      this.errors.push({ name, error: wrapped });
      this.link.log('error', 'user', (wrapped.stack || '').includes(wrapped.message) ? wrapped.stack : wrapped.message);
    }
  }

  /** One entry a function; files that couldn't be loaded stand beside them with what went wrong. */
  metadata() {
    const results = [];
    for (const [name, { metadata }] of this.functions) {
      const bindings = {};
      const rawBindings = [];
      for (const [bindingName, binding] of Object.entries(metadata.bindings)) {
        const { type, direction, dataType } = binding;
        bindings[bindingName] = { type, direction, dataType: dataType || 'undefined' };
        rawBindings.push(JSON.stringify({ ...binding, name: bindingName }));
      }
      const retryOptions = retry(metadata.retryOptions);
      const directory = this.root;
      results.push({ name, functionId: name, directory, language: 'node', bindings, rawBindings, retryOptions });
    }
    for (const { name, error } of this.errors) {
      results.push({ name, functionId: name, directory: this.root, scriptFile: name, language: 'node', status: failure(error) });
    }
    return results;
  }

  async invoke(request) {
    const { invocationId } = request;
    try {
      const known = this.functions.get(request.functionId);
      if (!known) throw new Error(`there is no function ${request.functionId}`);
      const response = await this.call(known, request);
      return { ...response, invocationId, result: success() };
    } catch (error) {
      return { invocationId, result: failure(error) };
    }
  }

  async call({ metadata, callback }, request) {
    const { core, link } = this;
    const { name } = metadata;
    const hookData = {};
    let invocationContext;
    const coreContext = {
      invocationId: request.invocationId,
      request,
      metadata: { ...metadata, functionId: name },
      state: undefined,
      log(level, category, message) {
        const context = core.runLogHooks({
          level,
          category,
          message,
          hookData,
          appHookData: core.appHookData,
          invocationContext,
        });
        link.log(context.level, category, context.message, request.invocationId, `Function.${name}`);
      },
    };
    const model = core.model.getInvocationModel(coreContext);
    const { context, inputs } = await model.getArguments();
    invocationContext = context;

    coreContext.state = 'preInvocationHooks';
    const before = { hookData, appHookData: core.appHookData, invocationContext: context, inputs, functionCallback: callback };
    await core.runHooks('preInvocation', before);

    coreContext.state = 'invocation';
    const after = { hookData, appHookData: core.appHookData, invocationContext: context, inputs: before.inputs, result: null, error: null };
    try {
      after.result = await model.invokeFunction(context, before.inputs, before.functionCallback);
    } catch (error) {
      after.error = error === undefined || error === null ? new Error('Unknown error') : error;
    }

    coreContext.state = 'postInvocationHooks';
    await core.runHooks('postInvocation', after);
    coreContext.state = undefined;
    if (after.error !== null && after.error !== undefined) throw after.error;
    return toMessage(await model.getResponse(context, after.result));
  }

  async terminate() {
    try {
      await this.core.runHooks('appTerminate', { hookData: {}, appHookData: this.core.appHookData });
    } catch (error) {
      this.link.log('error', 'user', `an appTerminate hook failed: ${error && error.stack}`);
    }
  }
}

const SAME_SITE = { none: 'None', lax: 'Lax', strict: 'Strict', explicitNone: 'ExplicitNone' };

/** The package's response with the names of enums as the protocol writes them. */
function toMessage(response) {
  const values = [response.returnValue, ...(response.outputData || []).map((output) => output.data)];
  for (const value of values) {
    for (const cookie of (value && value.http && value.http.cookies) || []) {
      cookie.sameSite = SAME_SITE[cookie.sameSite] || 'None';
    }
  }
  const { outputData, returnValue } = response;
  return { outputData, returnValue: returnValue === null ? undefined : returnValue };
}

const STRATEGY = { exponentialBackoff: 'exponential_backoff', fixedDelay: 'fixed_delay' };

function retry(options) {
  if (!options) return undefined;
  const { maxRetryCount, delayInterval, minimumInterval, maximumInterval } = options;
  const retryStrategy = STRATEGY[options.retryStrategy] || options.retryStrategy;
  return { maxRetryCount, delayInterval, minimumInterval, maximumInterval, retryStrategy };
}

// Files that a glob may match: far more than an app has, and a bound for one that matches everything.
const MOST_FILES = 2000;

/** The files that `pattern` (`*`, `**`, `?`, `{a,b}`) matches below `root`, in order of their names. */
function expand(root, pattern) {
  const plain = path.join(root, pattern);
  if (!/[*?{]/.test(pattern)) {
    return [plain, `${plain}.js`, path.join(plain, 'index.js')].filter(isFile).slice(0, 1);
  }
  const regex = new RegExp(`^${toRegex(path.posix.normalize(pattern))}$`);
  const found = [];
  const visit = (folder) => {
    for (const entry of fs.readdirSync(path.join(root, folder), { withFileTypes: true })) {
      const name = path.posix.join(folder, entry.name);
      if (entry.isDirectory() && entry.name !== 'node_modules') visit(name);
      else if (regex.test(name)) found.push(path.join(root, name));
      if (found.length > MOST_FILES) throw new Error(`"main" matches more than ${MOST_FILES} files: ${pattern}`);
    }
  };
  visit('');
  return found.filter(isFile).sort();
}

const isFile = (file) => fs.existsSync(file) && fs.statSync(file).isFile();

function toRegex(pattern) {
  let depth = 0;
  return pattern.replace(/\*\*\/|\*\*|\*|\?|\{|\}|,|[.+^$()|[\]\\]/g, (part) => {
    switch (part) {
      case '**/':
        return '(?:.*/)?';
      case '**':
        return '.*';
      case '*':
        return '[^/]*';
      case '?':
        return '[^/]';
      case '{':
        depth += 1;
        return '(?:';
      case '}':
        depth -= 1;
        return ')';
      case ',':
        return depth > 0 ? '|' : ',';
      default:
        return `\\${part}`;
    }
  });
}

module.exports = { App, capabilities, failure, success, expand };
