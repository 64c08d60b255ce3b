// Who is signed in: a token in this browser tab's session storage, nowhere else.
//
// A token comes in the address's fragment (`#token=…`, from the command line), which is taken out of the
// address and the history at once; or it is signed here, from a connection string, with WebCrypto. The key
// stays in this function's variables and goes nowhere.

const KEPT = "fleetline.token";
const TTL_SECONDS = 12 * 3600;

let token = null;

const encode = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const utf8 = (text) => new TextEncoder().encode(text);

function claims(text) {
  try {
    const part = text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
  } catch {
    return null;
  }
}

function isUsable(text) {
  const found = text && claims(text);
  return Boolean(found && found.exp > Date.now() / 1000);
}

function keep(text) {
  token = text;
  try {
    if (text) sessionStorage.setItem(KEPT, text);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // Without storage the token lasts as long as the page.
  }
}

/** Takes the token from the address, or the one that this tab has. */
export function start() {
  const found = /^#token=([\w.-]+)$/.exec(location.hash);
  if (found) {
    history.replaceState(null, "", location.pathname + "#/overview");
    keep(found[1]);
    return;
  }
  try {
    const kept = sessionStorage.getItem(KEPT);
    if (isUsable(kept)) token = kept;
  } catch {
    token = null;
  }
}

/** The token, or null. */
export const current = () => (isUsable(token) ? token : null);

/** Forgets it. */
export const end = () => keep(null);

/** Signs a token from a connection string of a shared access policy. */
export async function signIn(text) {
  const parts = new Map();
  for (const part of text.trim().split(";")) {
    const at = part.indexOf("=");
    if (at > 0) parts.set(part.slice(0, at).trim().toLowerCase(), part.slice(at + 1).trim());
  }
  const policy = parts.get("sharedaccesskeyname");
  const key = parts.get("sharedaccesskey");
  if (!policy || !key) {
    throw new Error(parts.has("deviceid")
      ? "This is a device's connection string; the console needs one of a shared access policy."
      : "That is no connection string: SharedAccessKeyName and SharedAccessKey are needed.");
  }
  if (!globalThis.crypto?.subtle) throw new Error("This browser signs only on pages that came over HTTPS, or from localhost.");
  let bytes;
  try {
    bytes = Uint8Array.from(atob(key), (c) => c.charCodeAt(0));
  } catch {
    throw new Error("SharedAccessKey is not Base64.");
  }
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const signing = await crypto.subtle.importKey("raw", bytes, algorithm, false, ["sign"]);
  const now = Math.floor(Date.now() / 1000);
  const body = { aud: "console", exp: now + TTL_SECONDS, sub: policy };
  const signed = [{ alg: "HS256", typ: "JWT" }, body].map((part) => encode(utf8(JSON.stringify(part)))).join(".");
  const signature = await crypto.subtle.sign("HMAC", signing, utf8(signed));
  keep(`${signed}.${encode(new Uint8Array(signature))}`);
}
