// What the map's two canvases show: the land below, the devices above.
//
// A view is `{x, y, size, width, height}`: the Mercator point at the middle, the world's width in pixels,
// and the canvas's measures.

import * as theme from "./theme.js";

/** Below this size of the world, fine outlines are not worth their points. */
const FINE_SIZE = 2600;

const PLANE = new Path2D("M0-10c1 0 1.400 1.500 1.400 3v4L10 3v2L1.400 2.600 1.100 7 4 9.300v1.300L0 9.500l-4 1.100V9.300L-1.100 7l-.3-4.400L-10 5V3l8.600-6v-4c0-1.500.400-3 1.400-3z");

/** Altitudes as colours, low to high. */
const RAMP = {
  dark: [[255, 138, 76], [255, 207, 84], [104, 226, 138], [52, 208, 226], [110, 156, 255], [192, 140, 255]],
  light: [[201, 74, 6], [168, 125, 0], [16, 140, 82], [4, 132, 154], [41, 94, 214], [118, 58, 214]],
};

const STEPS = 24;
const ramps = new Map();

function ramp() {
  const name = theme.isDark() ? "dark" : "light";
  if (!ramps.has(name)) {
    const stops = RAMP[name];
    ramps.set(name, Array.from({ length: STEPS }, (_, i) => {
      const at = (i / (STEPS - 1)) * (stops.length - 1);
      const low = Math.min(stops.length - 2, Math.floor(at));
      const mix = stops[low].map((v, c) => Math.round(v + (stops[low + 1][c] - v) * (at - low)));
      return `rgb(${mix.join(",")})`;
    }));
  }
  return ramps.get(name);
}

/** The colour of a share (0 to 1) of the highest altitude. */
export const altitudeColor = (share) => ramp()[Math.max(0, Math.min(STEPS - 1, Math.round(share * (STEPS - 1))))];

export const screenX = (view, x) => (x - view.x) * view.size + view.width / 2;
export const screenY = (view, y) => (y - view.y) * view.size + view.height / 2;

function land(context, view, dpr, part, border) {
  const px = 1 / view.size;
  context.fillStyle = theme.color("map-land");
  context.fill(part.fill, "evenodd");
  context.lineJoin = "round";
  context.lineWidth = px * border;
  context.strokeStyle = theme.color("map-border");
  context.stroke(part.lines);
  context.lineWidth = px * 0.9;
  context.strokeStyle = theme.color("map-coast");
  context.stroke(part.coast);
}

function grid(context, view) {
  const degrees = view.size > 30000 ? 1 : view.size > 6000 ? 5 : view.size > 2000 ? 10 : 30;
  context.strokeStyle = theme.color("map-grid");
  context.lineWidth = 1 / view.size;
  context.beginPath();
  for (let lon = -180; lon <= 180; lon += degrees) {
    const x = (lon + 180) / 360;
    context.moveTo(x, 0);
    context.lineTo(x, 1);
  }
  for (let lat = -80; lat <= 80; lat += degrees) {
    const sine = Math.sin((lat * Math.PI) / 180);
    const y = 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
    context.moveTo(0, y);
    context.lineTo(1, y);
  }
  context.stroke();
}

/** Land, borders, names. */
export function drawBase(context, view, dpr, data) {
  context.setTransform(dpr, 0, 0, dpr, 0, 0);
  context.fillStyle = theme.color("map-sea");
  context.fillRect(0, 0, view.width, view.height);
  const toWorld = () => context.setTransform(view.size * dpr, 0, 0, view.size * dpr, (view.width / 2 - view.x * view.size) * dpr, (view.height / 2 - view.y * view.size) * dpr);
  toWorld();
  grid(context, view);
  if (!data) return;
  land(context, view, dpr, data.world, 0.7);
  if (view.size >= FINE_SIZE) {
    const { x, y, width, height } = data.europe.frame;
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.fillStyle = theme.color("map-sea");
    context.fillRect(x, y, width, height);
    grid(context, view);
    land(context, view, dpr, data.europe, 1);
    context.restore();
  }
  context.setTransform(dpr, 0, 0, dpr, 0, 0);
  names(context, view, data);
}

function names(context, view, data) {
  const taken = [];
  const isFree = (left, top, right, bottom) => taken.every(([l, t, r, b]) => right < l || left > r || bottom < t || top > b);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.strokeStyle = theme.color("map-halo");
  context.lineWidth = 3;
  const put = (place, font, color, dot) => {
    const x = screenX(view, place.x), y = screenY(view, place.y);
    if (x < -60 || y < -20 || x > view.width + 60 || y > view.height + 20) return;
    context.font = font;
    const width = context.measureText(place.text).width;
    const left = dot ? x + 6 : x - width / 2;
    const box = [left - 6, y - 9, left + width + 6, y + 9];
    if (!isFree(...box)) return;
    taken.push(box);
    context.fillStyle = color;
    if (dot) {
      context.beginPath();
      context.arc(x, y, 1.8, 0, 7);
      context.fill();
    }
    context.textAlign = "left";
    context.strokeText(place.text, left, y);
    context.fillText(place.text, left, y);
  };
  const faint = theme.color("map-label");
  const country = view.size < 1800 ? 1 : view.size < 4500 ? 2 : 3;
  const town = view.size < 5000 ? 0 : view.size < 11000 ? 1 : view.size < 21000 ? 2 : 3;
  const source = view.size >= FINE_SIZE ? [...data.europe.names, ...data.world.names.filter((name) => !inside(name, data.europe.frame))] : data.world.names;
  const byRank = (a, b) => a.rank - b.rank;
  for (const place of [...data.towns].sort(byRank)) if (place.rank <= town) put(place, "500 11px ui-sans-serif, system-ui, sans-serif", faint, true);
  for (const place of [...source].sort(byRank)) {
    if (place.rank > country) continue;
    put({ ...place, text: place.text.toUpperCase() }, "600 10px ui-sans-serif, system-ui, sans-serif", theme.faded("map-label", 0.75), false);
  }
}

const inside = ({ x, y }, frame) => x >= frame.x && x <= frame.x + frame.width && y >= frame.y && y <= frame.y + frame.height;

/** A device: an aircraft when it has heading and altitude, a pointer with a heading, else a dot. */
export function drawSymbol(context, x, y, { heading, isPlane, color, size, alpha, outline }) {
  context.save();
  context.globalAlpha = alpha;
  context.translate(x, y);
  context.fillStyle = color;
  context.strokeStyle = outline;
  context.lineJoin = "round";
  if (heading === null || heading === undefined) {
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(0, 0, size * 0.45, 0, 7);
  } else {
    context.rotate((heading * Math.PI) / 180);
    if (isPlane) {
      context.scale(size / 10, size / 10);
      context.lineWidth = 14 / size;
      context.stroke(PLANE);
      context.fill(PLANE);
      context.restore();
      return;
    }
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(0, -size * 0.85);
    context.lineTo(size * 0.6, size * 0.7);
    context.lineTo(0, size * 0.35);
    context.lineTo(-size * 0.6, size * 0.7);
    context.closePath();
  }
  context.stroke();
  context.fill();
  context.restore();
}

/** A ring that grows and fades; `share` from 0 to 1. */
export function drawPulse(context, x, y, share, colorName) {
  context.beginPath();
  context.arc(x, y, 8 + 34 * share, 0, 7);
  context.strokeStyle = theme.faded(colorName, (1 - share) * 0.9);
  context.lineWidth = 2.5 * (1 - share) + 0.5;
  context.stroke();
  context.fillStyle = theme.faded(colorName, (1 - share) * 0.14);
  context.fill();
}
