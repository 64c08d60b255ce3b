// Makes the outlines of the console's map from the npm release of world-atlas (Natural Earth, public domain).
//
//   node map.mjs NODE_MODULES OUT
//
// Called by vendor.sh. Writes OUT/world.json (all countries, 110m) and OUT/europe.json (western and central
// Europe, 10m, cut to a box). Both hold rings as integers, each point as the difference to the one before:
//
//   {"scale": units per degree, "box": [west, south, east, north],
//    "land": [[x, y, dx, dy, …], …],      closed rings; those with the other direction are holes
//    "borders": [[x, y, dx, dy, …], …],   lines between countries
//    "names": [[name, longitude, latitude, rank], …]}   rank 1 is shown first
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const [modules, out] = process.argv.slice(2);
const require = createRequire(join(resolve(modules), "x.js"));
const { feature, mesh } = require("topojson-client");
const read = (name) => JSON.parse(readFileSync(join(modules, "world-atlas", name)));

const EUROPE = [-12, 34.5, 20.5, 60];
// Antarctica and its like would only be in the way of a Web Mercator map.
const WORLD = [-180, -60, 180, 84];

/** Drops points that lie within `tolerance` degrees of the line without them (Douglas-Peucker). */
function simplified(points, tolerance) {
  if (points.length < 3) return points;
  const keep = new Uint8Array(points.length);
  keep[0] = keep[points.length - 1] = 1;
  const stack = [[0, points.length - 1]];
  while (stack.length) {
    const [from, to] = stack.pop();
    const [ax, ay] = points[from];
    const [bx, by] = points[to];
    // A degree of longitude is shorter than one of latitude.
    const shrink = Math.cos(((ay + by) / 2) * (Math.PI / 180));
    const dx = (bx - ax) * shrink, dy = by - ay, length = Math.hypot(dx, dy);
    let farthest = -1, distance = tolerance;
    for (let i = from + 1; i < to; i++) {
      const px = (points[i][0] - ax) * shrink, py = points[i][1] - ay;
      const d = length > 0 ? Math.abs(px * dy - py * dx) / length : Math.hypot(px, py);
      if (d > distance) [farthest, distance] = [i, d];
    }
    if (farthest >= 0) {
      keep[farthest] = 1;
      stack.push([from, farthest], [farthest, to]);
    }
  }
  return points.filter((_, i) => keep[i]);
}

const EDGES = [
  { inside: (p, b) => p[0] >= b[0], cut: (b) => [0, b[0]] },
  { inside: (p, b) => p[0] <= b[2], cut: (b) => [0, b[2]] },
  { inside: (p, b) => p[1] >= b[1], cut: (b) => [1, b[1]] },
  { inside: (p, b) => p[1] <= b[3], cut: (b) => [1, b[3]] },
];

function crossing(a, b, [axis, at]) {
  const t = (at - a[axis]) / (b[axis] - a[axis]);
  const point = [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t];
  point[axis] = at;
  return point;
}

/** The part of a closed ring in a box (Sutherland-Hodgman). */
function cutRing(ring, box) {
  let points = ring.slice(0, -1);
  for (const edge of EDGES) {
    const next = [];
    points.forEach((point, i) => {
      const before = points[(i + points.length - 1) % points.length];
      if (edge.inside(point, box) !== edge.inside(before, box)) next.push(crossing(before, point, edge.cut(box)));
      if (edge.inside(point, box)) next.push(point);
    });
    points = next;
    if (points.length < 3) return [];
  }
  return [...points, points[0]];
}

/** The parts of a line in a box. */
function cutLine(line, box) {
  let parts = [line];
  for (const edge of EDGES) {
    const next = [];
    for (const part of parts) {
      let open = [];
      part.forEach((point, i) => {
        if (i > 0 && edge.inside(point, box) !== edge.inside(part[i - 1], box)) {
          const at = crossing(part[i - 1], point, edge.cut(box));
          if (edge.inside(point, box)) open = [at];
          else { open.push(at); next.push(open); open = []; }
        }
        if (edge.inside(point, box)) open.push(point);
      });
      if (open.length > 1) next.push(open);
    }
    parts = next;
  }
  return parts;
}

function area(ring) {
  let sum = 0;
  for (let i = 1; i < ring.length; i++) sum += ring[i - 1][0] * ring[i][1] - ring[i][0] * ring[i - 1][1];
  return Math.abs(sum / 2);
}

function centre(ring) {
  let sum = 0, x = 0, y = 0;
  for (let i = 1; i < ring.length; i++) {
    const [ax, ay] = ring[i - 1], [bx, by] = ring[i], cross = ax * by - bx * ay;
    sum += cross; x += (ax + bx) * cross; y += (ay + by) * cross;
  }
  return [x / (3 * sum), y / (3 * sum)];
}

function encoded(points, scale) {
  const row = [];
  let [lastX, lastY] = [0, 0];
  for (const [x, y] of points) {
    const qx = Math.round(x * scale), qy = Math.round(y * scale);
    if (row.length && qx === lastX && qy === lastY) continue;
    row.push(qx - lastX, qy - lastY);
    [lastX, lastY] = [qx, qy];
  }
  return row;
}

function outlines({ file, box, scale, tolerance, areaMin, nameAreas }) {
  const atlas = read(file);
  const countries = atlas.objects.countries;
  const polygons = (geometry) => geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
  const names = [];
  for (const country of feature(atlas, countries).features) {
    const rings = polygons(country.geometry).map((polygon) => cutRing(polygon[0], box)).filter((ring) => ring.length);
    const largest = rings.sort((a, b) => area(b) - area(a))[0];
    if (!largest) continue;
    const rank = nameAreas.findIndex((least) => area(largest) >= least) + 1;
    if (rank > 0) names.push([country.properties.name, ...centre(largest).map((v) => Math.round(v * 100) / 100), rank]);
  }
  const land = [];
  const merged = feature(atlas, atlas.objects.land);
  for (const one of merged.features ?? [merged]) {
    for (const polygon of polygons(one.geometry)) {
      for (const ring of polygon) {
        const cut = cutRing(ring, box);
        if (cut.length && area(cut) >= areaMin) land.push(encoded(simplified(cut, tolerance), scale));
      }
    }
  }
  const between = mesh(atlas, countries, (a, b) => a !== b).coordinates;
  const borders = between.flatMap((line) => cutLine(line, box)).map((line) => encoded(simplified(line, tolerance), scale));
  const long = (row) => row.length >= 4;
  return { scale, box, land: land.filter((row) => row.length >= 8), borders: borders.filter(long), names };
}

const write = (name, value) => {
  const text = JSON.stringify(value);
  writeFileSync(join(out, name), text + "\n");
  console.log(`${name}: ${text.length} bytes, ${value.land.length} rings, ${value.borders.length} borders`);
};
write("world.json", outlines({
  file: "countries-110m.json", box: WORLD, scale: 100, tolerance: 0.05, areaMin: 0.3, nameAreas: [300, 60, 15],
}));
write("europe.json", outlines({
  file: "countries-10m.json", box: EUROPE, scale: 1000, tolerance: 0.0028, areaMin: 0.0002, nameAreas: [12, 3, 0.15],
}));
