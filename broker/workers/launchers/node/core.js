'use strict';
// The module `@azure/functions-core`, which `@azure/functions` expects from its host (§1.2): functions
// and hooks are registered here, and the package says how a call is made (its programming model).

const Module = require('module');

const NAME = '@azure/functions-core';
const HOOKS = ['preInvocation', 'postInvocation', 'appStart', 'appTerminate', 'log'];

class Disposable {
  static from(...list) {
    return new Disposable(() => list.forEach((item) => item && item.dispose && item.dispose()));
  }

  #onDispose;

  constructor(onDispose) {
    this.#onDispose = onDispose;
  }

  dispose() {
    const call = this.#onDispose;
    this.#onDispose = undefined;
    if (call) call();
  }
}

class Core {
  constructor(link) {
    this.link = link;
    this.version = '1.0.0';
    this.hostVersion = '4.1037.0';
    this.model = undefined;
    this.functions = new Map();
    this.isOpen = false;
    this.hooks = Object.fromEntries(HOOKS.map((name) => [name, []]));
    this.appHookData = {};
    this.inject();
  }

  /** Answers `require('@azure/functions-core')`, wherever it comes from. */
  inject() {
    const api = this.api();
    const load = Module._load;
    Module._load = function (name, ...rest) {
      return name === NAME ? api : load.call(this, name, ...rest);
    };
  }

  api() {
    const core = this;
    return {
      get version() {
        return core.version;
      },
      get hostVersion() {
        return core.hostVersion;
      },
      Disposable,
      setProgrammingModel(model) {
        core.model = model;
      },
      getProgrammingModel() {
        return core.model;
      },
      registerFunction: (metadata, callback) => core.registerFunction(metadata, callback),
      registerHook: (name, callback) => core.registerHook(name, callback),
      log: (level, category, message) => core.link.log(level, category, message),
    };
  }

  registerFunction(metadata, callback) {
    const { name } = metadata;
    if (!this.isOpen) throw new Error(`the function "${name}" can't be registered after the app has started`);
    if (this.functions.has(name)) throw new Error(`a function with the name "${name}" is already registered`);
    if (typeof callback !== 'function') throw new TypeError(`the handler of "${name}" is not a function`);
    this.functions.set(name, { metadata, callback });
    return new Disposable(() => this.isOpen && this.functions.delete(name));
  }

  registerHook(name, callback) {
    const list = this.hooks[name];
    if (!list) throw new RangeError(`unrecognized hook "${name}"`);
    list.push(callback);
    return new Disposable(() => {
      const index = list.indexOf(callback);
      if (index >= 0) list.splice(index, 1);
    });
  }

  async runHooks(name, context) {
    for (const callback of this.hooks[name]) await callback(context);
    return context;
  }

  /** Log hooks are not awaited, and a line that one of them writes doesn't come back to them. */
  runLogHooks(context) {
    if (this.inLogHook) return context;
    this.inLogHook = true;
    try {
      for (const callback of this.hooks.log) callback(context);
    } finally {
      this.inLogHook = false;
    }
    return context;
  }

  /** What the worker can do, after the package has had its say. */
  async capabilities(own) {
    if (!this.model || !this.model.getCapabilities) return own;
    return this.model.getCapabilities(own);
  }
}

module.exports = { Core };
