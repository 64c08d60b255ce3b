// The queries of the console.

import * as session from "./session.js";

/** A refusal, with its status. 0: the node could not be reached. */
export class ApiError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

let onSignedOut = () => {};

/** Called when a query says that the token counts no more. */
export const whenSignedOut = (callback) => { onSignedOut = callback; };

async function call(method, path, body, signal) {
  let response;
  try {
    response = await fetch("api/" + path, {
      method,
      signal,
      headers: { authorization: `Bearer ${session.current() ?? ""}`, ...(body ? { "content-type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The node can't be reached.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  if (response.status === 401) {
    session.end();
    onSignedOut("Please sign in again: the token is not valid (any more).");
  }
  throw new ApiError(response.status, answer?.error?.text ?? `The node answers with status ${response.status}.`);
}

export const get = (path, signal) => call("GET", path, undefined, signal);
export const post = (path, body) => call("POST", path, body);
export const patch = (path, body) => call("PATCH", path, body);

/** Calls `work` now and then every `ms`, while the page is seen, until the returned function is called. */
export function poll(ms, work) {
  let timer = 0;
  let stopped = false;
  const control = new AbortController();
  async function round() {
    if (!document.hidden) await work(control.signal).catch((error) => {
      if (error.name !== "AbortError") console.warn(error.message);
    });
    if (!stopped) timer = setTimeout(round, ms);
  }
  round();
  return () => {
    stopped = true;
    control.abort();
    clearTimeout(timer);
  };
}
