// Dark and light: as the system says, or as chosen. Colours for what is drawn on a canvas.

const KEPT = "fleetline.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const probe = document.createElement("i");
probe.hidden = true;
document.documentElement.append(probe);

let cache = new Map();
const changed = new EventTarget();

/** `dark`, `light` or `auto`. */
export const chosen = () => document.documentElement.dataset.theme ?? "auto";

/** Goes to the next of the three. */
export function next() {
  const order = system.matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
  const to = order[(order.indexOf(chosen()) + 1) % 3];
  if (to === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = to;
  try {
    if (to === "auto") localStorage.removeItem(KEPT);
    else localStorage.setItem(KEPT, to);
  } catch {
    // Then it is chosen for this visit.
  }
  announce();
}

function announce() {
  cache = new Map();
  changed.dispatchEvent(new Event("change"));
}
system.addEventListener("change", announce);

/** The value of a colour now: `color("accent")`. */
export function color(name) {
  if (!cache.has(name)) {
    probe.style.color = `var(--${name})`;
    cache.set(name, getComputedStyle(probe).color);
  }
  return cache.get(name);
}

/** The colour with this much of it (0 to 1). */
export function faded(name, alpha) {
  const key = `${name}/${alpha}`;
  if (!cache.has(key)) {
    const [r, g, b] = color(name).match(/[\d.]+/g);
    cache.set(key, `rgba(${r}, ${g}, ${b}, ${alpha})`);
  }
  return cache.get(key);
}

/** Whether it is dark now. */
export const isDark = () => (chosen() === "auto" ? system.matches : chosen() === "dark");

/** Calls back when colours have changed, until the returned function is called. */
export function onChange(callback) {
  changed.addEventListener("change", callback);
  return () => changed.removeEventListener("change", callback);
}

/** Whether things may move. */
export const mayMove = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;
