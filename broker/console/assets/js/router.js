// Which view is shown: `#/devices/plane-7`.

let current = null;
let routes = [];
let target = null;
let onShown = () => {};

/** The path of an address, decoded: `["devices", "plane-7"]`; null when it is no place of the console. */
export function path() {
  if (!location.hash.startsWith("#/")) return location.hash === "" ? [] : null;
  return location.hash.slice(2).split("?")[0].split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
}

/** A parameter of the address: `q` of `#/devices?q=plane`. */
export const parameter = (name) => new URLSearchParams(location.hash.split("?")[1] ?? "").get(name) ?? "";

/** Goes somewhere. */
export const go = (hash) => { location.hash = hash; };

function show() {
  const parts = path();
  if (parts === null) return;
  const route = routes.find((one) => one.name === parts[0] && (one.deep ?? false) === parts.length > 1) ?? routes[0];
  current?.leave?.();
  target.replaceChildren();
  target.scrollTop = 0;
  current = route.view(target, parts.slice(1)) ?? {};
  document.title = `${current.title ?? route.title} · Fleetline`;
  onShown(route);
}

/** Shows views in `element`. A view is `(element, parts) → {title?, leave?}`. */
export function start(element, list, shown) {
  target = element;
  routes = list;
  onShown = shown;
  addEventListener("hashchange", show);
  show();
}

/** Leaves the view and stops. */
export function stop() {
  removeEventListener("hashchange", show);
  current?.leave?.();
  current = null;
  target?.replaceChildren();
}
