// Makes a component of one function: `node build.mjs SOURCE WIT OUTPUT`. Started by build.sh.
//
// Clocks and random numbers are left out of the JavaScript engine, so that a batch that comes again gives
// the same effects; `Date.now()` and `Math.random()` don't give anything of use then. Output stays in: it
// goes to the function's log.
//
// A batch fails with a text (`fleetline.wit`), so what the function throws is made one on its way out.
import { copyFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { componentize } from '@bytecodealliance/componentize-js';

const WRAPPER = `
import * as app from './function.js';

export async function handleBatch(batch) {
  try {
    return await app.handleBatch(batch);
  } catch (error) {
    throw error instanceof Error ? \`\${error}\\n\${error.stack}\` : String(error);
  }
}
`;

const [source, witPath, output] = process.argv.slice(2);
const folder = await mkdtemp(join(tmpdir(), 'fleetline-wasm-'));
try {
  const sourcePath = join(folder, 'wrapper.js');
  await copyFile(source, join(folder, 'function.js'));
  await writeFile(sourcePath, WRAPPER);
  const { component } = await componentize({
    sourcePath,
    witPath,
    worldName: 'function',
    disableFeatures: ['random', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(`${output}.new`, component);
  await rename(`${output}.new`, output);
} finally {
  await rm(folder, { recursive: true });
}
