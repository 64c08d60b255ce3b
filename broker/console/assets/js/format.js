// Numbers and times as people read them.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hour12: false });

/** `1,234` */
export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));

/** A number with three digits or so, and its unit's prefix: `[1.23, "k"]`. */
function scaled(n, step, units) {
  let at = 0;
  while (Math.abs(n) >= step && at < units.length - 1) {
    n /= step;
    at += 1;
  }
  const places = at === 0 ? (Math.abs(n) < 10 && n % 1 !== 0 ? 1 : 0) : Math.abs(n) < 10 ? 2 : Math.abs(n) < 100 ? 1 : 0;
  return [n.toFixed(places), units[at]];
}

/** `12.3k` */
export function short(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return "–";
  const [value, unit] = scaled(n, 1000, ["", "k", "M", "G", "T"]);
  return value + unit;
}

/** `[12.3, "MB"]` */
export const bytesParts = (n) => (n === null || n === undefined ? ["–", ""] : scaled(n, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]));

/** `12.3 MB` */
export const bytes = (n) => bytesParts(n).join(" ").trim();

/** A value of telemetry: enough digits to see it move. */
export function value(n) {
  if (!Number.isFinite(n)) return String(n);
  const size = Math.abs(n);
  if (Number.isInteger(n) || size >= 1000) return whole.format(n);
  return n.toFixed(size >= 100 ? 1 : size >= 1 ? 2 : 4);
}

/** `14:03:59` */
export const time = (ms) => (ms ? clock.format(ms) : "–");

/** `24 Nov 2026, 14:03:59` */
export const date = (ms) => (ms ? day.format(ms) : "–");

/** `3 min ago` */
export function ago(ms, now = Date.now()) {
  if (!ms) return "never";
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 2) return "now";
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

/** `1.2 ms`, `3.4 s` */
export function millis(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}

/** One line of a record's body. */
export function preview(body) {
  return typeof body === "string" ? body : JSON.stringify(body);
}
