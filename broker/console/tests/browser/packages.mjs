// The packages that run.sh has installed outside the source tree.

import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const home = process.env.FLEETLINE_BROWSER;
if (!home) throw new Error("start this by run.sh: it installs the packages and says where they are");

export const { chromium } = createRequire(join(resolve(home), "x.js"))("playwright-core");
export const { WebSocketServer } = createRequire(join(resolve(home), "x.js"))("ws");
