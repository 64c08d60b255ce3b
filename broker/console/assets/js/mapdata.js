// Outlines of the map, as paths in Web Mercator: the world is the square from 0 to 1.

const RADIANS = Math.PI / 180;

export const mercatorX = (lon) => (lon + 180) / 360;
export const mercatorY = (lat) => {
  const sine = Math.sin(Math.max(-85.05, Math.min(85.05, lat)) * RADIANS);
  return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
};

/** Larger towns of the area that has fine outlines: name, longitude, latitude, rank. */
const TOWNS = [
  ["London", -0.13, 51.51, 1], ["Paris", 2.35, 48.86, 1], ["Madrid", -3.7, 40.42, 1], ["Rome", 12.5, 41.9, 1],
  ["Berlin", 13.4, 52.52, 1], ["Vienna", 16.37, 48.21, 1], ["Zürich", 8.54, 47.38, 1], ["Geneva", 6.14, 46.2, 2],
  ["Bern", 7.45, 46.95, 2], ["Basel", 7.59, 47.56, 2], ["Lugano", 8.95, 46.0, 3], ["Lausanne", 6.63, 46.52, 3],
  ["St. Gallen", 9.38, 47.42, 3], ["Sion", 7.36, 46.23, 3], ["Chur", 9.53, 46.85, 3], ["Lucerne", 8.31, 47.05, 3],
  ["Toulouse", 1.44, 43.6, 1], ["Bordeaux", -0.58, 44.84, 2], ["Montpellier", 3.88, 43.61, 3], ["Pau", -0.37, 43.3, 3],
  ["Carcassonne", 2.35, 43.21, 3], ["Perpignan", 2.9, 42.7, 3], ["Limoges", 1.26, 45.83, 3], ["Marseille", 5.37, 43.3, 1],
  ["Lyon", 4.84, 45.76, 1], ["Nice", 7.27, 43.7, 2], ["Grenoble", 5.72, 45.19, 3], ["Dijon", 5.04, 47.32, 3],
  ["Strasbourg", 7.75, 48.57, 2], ["Nantes", -1.55, 47.22, 2], ["Lille", 3.06, 50.63, 2], ["Clermont-Ferrand", 3.09, 45.78, 3],
  ["Milan", 9.19, 45.46, 1], ["Turin", 7.69, 45.07, 2], ["Venice", 12.34, 45.44, 2], ["Genoa", 8.93, 44.41, 2],
  ["Bologna", 11.34, 44.49, 3], ["Florence", 11.25, 43.77, 2], ["Naples", 14.25, 40.85, 2], ["Munich", 11.58, 48.14, 1],
  ["Stuttgart", 9.18, 48.78, 2], ["Frankfurt", 8.68, 50.11, 1], ["Cologne", 6.96, 50.94, 2], ["Hamburg", 9.99, 53.55, 1],
  ["Freiburg", 7.85, 48.0, 3], ["Nuremberg", 11.08, 49.45, 3], ["Friedrichshafen", 9.48, 47.65, 3], ["Innsbruck", 11.4, 47.27, 3],
  ["Salzburg", 13.05, 47.8, 3], ["Prague", 14.44, 50.08, 1], ["Warsaw", 21.0, 52.2, 1], ["Copenhagen", 12.57, 55.68, 1],
  ["Amsterdam", 4.9, 52.37, 1], ["Brussels", 4.35, 50.85, 1], ["Luxembourg", 6.13, 49.61, 3], ["Dublin", -6.26, 53.35, 1],
  ["Edinburgh", -3.19, 55.95, 2], ["Manchester", -2.24, 53.48, 2], ["Barcelona", 2.17, 41.39, 1], ["Valencia", -0.38, 39.47, 2],
  ["Zaragoza", -0.88, 41.65, 2], ["Bilbao", -2.93, 43.26, 2], ["Sevilla", -5.99, 37.39, 2], ["Lisbon", -9.14, 38.72, 1],
  ["Porto", -8.61, 41.15, 2], ["Ljubljana", 14.51, 46.05, 3], ["Zagreb", 15.98, 45.81, 2], ["Budapest", 19.04, 47.5, 1],
];

/** Whether a piece of a ring lies on the edge of the cut: it is no coast then. */
function isEdge(a, b, [west, south, east, north]) {
  const near = (p, q) => Math.abs(p - q) < 0.002;
  return (a[0] === b[0] && (near(a[0], west) || near(a[0], east))) || (a[1] === b[1] && (near(a[1], south) || near(a[1], north)));
}

function points(row, scale) {
  const out = [];
  let x = 0, y = 0;
  for (let i = 0; i < row.length; i += 2) {
    x += row[i];
    y += row[i + 1];
    out.push([x / scale, y / scale]);
  }
  return out;
}

function decoded({ scale, box, land, borders, names }) {
  const fill = new Path2D(), coast = new Path2D(), lines = new Path2D();
  const place = ([lon, lat]) => [mercatorX(lon), mercatorY(lat)];
  for (const row of land) {
    let before = null;
    for (const point of points(row, scale)) {
      const [x, y] = place(point);
      if (before) {
        fill.lineTo(x, y);
        if (isEdge(before, point, box)) coast.moveTo(x, y);
        else coast.lineTo(x, y);
      } else {
        fill.moveTo(x, y);
        coast.moveTo(x, y);
      }
      before = point;
    }
    fill.closePath();
  }
  for (const row of borders) {
    points(row, scale).forEach((point, i) => {
      const [x, y] = place(point);
      if (i === 0) lines.moveTo(x, y);
      else lines.lineTo(x, y);
    });
  }
  const label = ([text, lon, lat, rank]) => ({ text, x: mercatorX(lon), y: mercatorY(lat), rank });
  const [west, south, east, north] = box;
  const frame = { x: mercatorX(west), y: mercatorY(north), width: mercatorX(east) - mercatorX(west), height: mercatorY(south) - mercatorY(north) };
  return { fill, coast, lines, names: names.map(label), frame };
}

let loading = null;

/** World and Europe, read once. */
export function outlines() {
  loading ??= Promise.all([fetch("map/world.json"), fetch("map/europe.json")])
    .then((answers) => Promise.all(answers.map((answer) => {
      if (!answer.ok) throw new Error("the map's outlines can't be read");
      return answer.json();
    })))
    .then(([world, europe]) => ({
      world: decoded(world),
      europe: decoded(europe),
      towns: TOWNS.map(([text, lon, lat, rank]) => ({ text, x: mercatorX(lon), y: mercatorY(lat), rank })),
    }))
    .catch((error) => {
      loading = null;
      throw error;
    });
  return loading;
}
