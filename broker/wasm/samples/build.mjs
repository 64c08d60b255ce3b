// Makes a component of one function: `node build.mjs SOURCE WIT OUTPUT`. Started by build.sh.
//
// Clocks and random numbers are left out of the JavaScript engine, so that a batch that comes again gives
// the same effects; `Date.now()` and `Math.random()` don't give anything of use then. Output stays in: it
// goes to the function's log, uncaught exceptions among it.
import { rename, writeFile } from 'node:fs/promises';

import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: 'function',
  disableFeatures: ['random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(`${output}.new`, component);
await rename(`${output}.new`, output);
