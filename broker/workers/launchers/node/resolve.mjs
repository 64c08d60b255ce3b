// Lets `import` find the node's packages, as NODE_PATH does for `require`: what an app doesn't bring
// itself is looked for beside them.

let parentURL;

export async function initialize(data) {
  parentURL = data.parentURL;
}

export async function resolve(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND' || /^[./]|^[a-z]+:/i.test(specifier)) throw error;
    try {
      return await next(specifier, { ...context, parentURL });
    } catch {
      throw error;
    }
  }
}
