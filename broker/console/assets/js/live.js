// The live link: the public SignalR client on the realtime hub `console`, and polling where there is none.

import * as api from "./api.js";
import * as store from "./store.js";

const STATUS_MS = 5000;
const STATUS_POLLING_MS = 2000;
const RETRY_MS = [0, 500, 1000, 2000, 4000, 8000];

let connection = null;
let stopped = true;
let stopStatus = () => {};

/** Starts; the returned function stops it. */
export function start() {
  stopped = false;
  followStatus(STATUS_MS);
  if (store.session?.may.live) connect(0);
  else poll();
  const tidy = setInterval(store.forgetPlaces, 30_000);
  return () => {
    stopped = true;
    stopStatus();
    clearInterval(tidy);
    connection?.stop();
    connection = null;
  };
}

function followStatus(ms) {
  stopStatus();
  if (!store.session?.may.status) return;
  stopStatus = api.poll(ms, async (signal) => {
    try {
      store.setStatus(await api.get("status", signal));
      if (store.link === "lost" && !connection) store.setLink("polling");
    } catch (error) {
      if (error.status === 0 && !connection) store.setLink("lost");
      throw error;
    }
  });
}

/** Without a realtime tier, or the right to watch, the status is asked more often. */
function poll() {
  store.setLink("polling");
  followStatus(STATUS_POLLING_MS);
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const retryAfter = (round) => RETRY_MS[Math.min(round, RETRY_MS.length - 1)] + Math.random() * 300;

async function connect(round) {
  while (!stopped) {
    await wait(round === 0 ? 0 : retryAfter(round));
    try {
      await open();
      store.setLink("live");
      loadPlaces();
      return;
    } catch (error) {
      connection = null;
      if (stopped || error.status === 401) return;
      if (error.status === 403 || error.status === 404) return poll();
      store.setLink(round === 0 ? "connecting" : "lost");
      round += 1;
    }
  }
}

async function open() {
  const { HubConnectionBuilder, LogLevel } = globalThis.signalR;
  const first = await api.post("negotiate");
  const tokens = [first.accessToken];
  connection = new HubConnectionBuilder()
    .withUrl(new URL(first.url, location.href).href, {
      // A token may be over when the link breaks: each new one asks again.
      accessTokenFactory: async () => tokens.pop() ?? (await api.post("negotiate")).accessToken,
      withCredentials: false,
    })
    .withAutomaticReconnect({ nextRetryDelayInMilliseconds: (context) => retryAfter(context.previousRetryCount) })
    .configureLogging(LogLevel.None)
    .build();
  connection.on("tick", store.takeTick);
  connection.on("positions", (message) => store.takePositions(message.rows));
  connection.on("records", (message) => store.takeRecords(message.rows));
  connection.on("alarm", store.takeAlarm);
  connection.onreconnecting(() => store.setLink("lost"));
  connection.onreconnected(() => store.setLink("live"));
  connection.onclose(() => {
    connection = null;
    if (stopped) return;
    store.setLink("lost");
    connect(1);
  });
  await connection.start();
}

/** Where devices were last: a page that opens later isn't empty. */
async function loadPlaces() {
  try {
    store.takePositions((await api.get("positions")).rows);
  } catch (error) {
    console.warn(error.message);
  }
}
