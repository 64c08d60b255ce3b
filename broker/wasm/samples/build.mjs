// Makes a component of one function: `node build.mjs SOURCE WIT OUTPUT`. Started by build.sh.
//
// All features of WASI are left out of the JavaScript engine, so the component imports nothing but what
// `fleetline.wit` has: `Date.now()` and `Math.random()` don't give anything of use then, which also
// makes a batch that comes again give the same effects.
import { rename, writeFile } from 'node:fs/promises';

import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: 'function',
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(`${output}.new`, component);
await rename(`${output}.new`, output);
