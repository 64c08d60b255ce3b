// Charts over time, by uPlot.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { short } from "./format.js";
import * as theme from "./theme.js";

/** Seconds that a chart shows at the least. */
const SPAN_MIN = 20;
const FONT = "11px ui-sans-serif, system-ui, sans-serif";

function sized(element, make) {
  let plot = null;
  const build = () => {
    plot?.destroy();
    plot = element.clientWidth > 0 && element.clientHeight > 0 ? make(element.clientWidth, element.clientHeight) : null;
  };
  const observer = new ResizeObserver(() => {
    if (plot && element.clientWidth > 0) plot.setSize({ width: element.clientWidth, height: element.clientHeight });
    else build();
  });
  observer.observe(element);
  const offTheme = theme.onChange(build);
  return {
    get plot() { return plot; },
    destroy() {
      observer.disconnect();
      offTheme();
      plot?.destroy();
      plot = null;
    },
  };
}

/** An area that fades towards the bottom. */
const area = (name, alpha) => (plot) => {
  const { top, height } = plot.bbox;
  if (!Number.isFinite(top) || height <= 0) return theme.faded(name, alpha / 2);
  const fill = plot.ctx.createLinearGradient(0, top, 0, top + height);
  fill.addColorStop(0, theme.faded(name, alpha));
  fill.addColorStop(1, theme.faded(name, 0));
  return fill;
};

const bottom = (plot) => plot.scales.y.min;

/** A line without axes. `data()` gives `[times, values]`. */
export function spark(element, data, colorName = "accent") {
  const range = (_, low, high) => {
    if (low === null || high === null) return [0, 1];
    const pad = (high - low) * 0.15 || Math.abs(high) * 0.1 || 1;
    return [low - pad, high + pad];
  };
  const handle = sized(element, (width, height) => new uPlot({
    width, height,
    legend: { show: false }, cursor: { show: false }, padding: [2, 0, 0, 0],
    axes: [{ show: false }, { show: false }],
    scales: { x: { time: false }, y: { range } },
    series: [{}, { stroke: theme.color(colorName), width: 1.5, fillTo: bottom, fill: area(colorName, 0.22), points: { show: false }, spanGaps: true }],
  }, data(), element));
  return { update: () => handle.plot?.setData(data()), destroy: handle.destroy };
}

function axes(leftUnit, right) {
  const common = {
    stroke: theme.color("faint"), font: FONT,
    grid: { stroke: theme.color("line"), width: 1 }, ticks: { show: false },
  };
  const list = [
    { ...common, grid: { show: false }, size: 26, gap: 4, space: 70, values: (_, splits) => splits.map((s) => new Date(s * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false })) },
    { ...common, scale: "left", size: 48, gap: 6, space: 36, values: (_, splits) => splits.map((v) => leftUnit(v)) },
  ];
  if (right) list.push({ ...common, scale: "right", side: 1, size: 58, gap: 6, grid: { show: false }, space: 36, values: (_, splits) => splits.map((v) => right(v)) });
  return list;
}

/** From zero, with room above: more on the right, so that two lines of one shape don't lie on each other. */
const fromZero = (room) => (_, low, high) => [0, Math.max(high ?? 0, 1) * room];

/**
 * Lines over time with axes. `lines`: `[{color, scale: "left"|"right"}]`; `data()` gives `[times, ...values]`;
 * `span()` gives the seconds to show. `onHover(index or null)` tells where the pointer is.
 */
export function lines(element, { lines: described, data, span, left = short, right = null, onHover = () => {} }) {
  const handle = sized(element, (width, height) => new uPlot({
    width, height,
    legend: { show: false },
    padding: [6, right ? 0 : 12, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: {
      // The whole span once there is as much; at the beginning what there is.
      x: { range: (plot, low, high) => [Math.max(high - span(), Math.min(plot.data[0][0] ?? high, high - SPAN_MIN)), high] },
      left: { range: fromZero(1.15) },
      ...(right ? { right: { range: fromZero(1.5) } } : {}),
    },
    axes: axes(left, right),
    series: [{}, ...described.map((line, i) => ({
      scale: line.scale, stroke: theme.color(line.color), width: i === 0 ? 1.8 : 1.4,
      fill: i === 0 ? area(line.color, 0.2) : undefined, points: { show: false }, spanGaps: true,
    }))],
    hooks: { setCursor: [(plot) => onHover(plot.cursor.idx ?? null)] },
  }, data(), element));
  return { update: () => handle.plot?.setData(data()), destroy: handle.destroy };
}

/** A small chart of one field, whose pointer moves with those of the same group. */
export function multiple(element, { color, data, group, onHover }) {
  const handle = sized(element, (width, height) => new uPlot({
    width, height,
    legend: { show: false }, padding: [6, 0, 4, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 }, sync: { key: group } },
    axes: [{ show: false }, { show: false }],
    scales: { x: {}, y: { range: (_, low, high) => {
      const pad = (high - low) * 0.12 || Math.abs(high) * 0.05 || 1;
      return [low - pad, high + pad];
    } } },
    series: [{}, { stroke: theme.color(color), width: 1.6, fillTo: bottom, fill: area(color, 0.16), points: { show: false }, spanGaps: true }],
    hooks: { setCursor: [(plot) => onHover(plot.cursor.idx ?? null)] },
  }, data(), element));
  return { update: () => handle.plot?.setData(data()), destroy: handle.destroy };
}
