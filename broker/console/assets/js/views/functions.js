// Functions: what they are, how they do, what they said last.

import * as api from "../api.js";
import { append, empty, fill, h, icon, problem, setText } from "../dom.js";
import { spark } from "../chart.js";
import { count, millis, short, time } from "../format.js";

const REFRESH_MS = 2000;
/** Points of the line of calls: five minutes. */
const POINTS_MAX = 150;
const STATES = { running: "good", starting: "warn", stopped: "", failed: "bad" };

function card(name) {
  const badge = h("span", { class: "badge" }), kind = h("span", { class: "kind" });
  const figures = Object.fromEntries(["calls", "failures", "duration", "lag"].map((key) => [key, h("dd")]));
  const logs = h("div", { class: "logs", tabindex: "0", "aria-label": `Log of ${name}` }), error = h("div");
  const plot = h("div", { class: "spark", "aria-hidden": "true" });
  const element = h("section", { class: "panel function", "aria-label": name },
    h("header", null, icon("functions", "small"), h("h2", null, name), kind, h("span", { class: "spring" }), badge),
    h("dl", { class: "figures" }, [["Calls", "calls"], ["Failures", "failures"], ["Duration", "duration"], ["Lag", "lag"]].map(([text, key]) => h("div", null, h("dt", null, text), figures[key]))),
    plot, error, logs);
  const rates = [[], []];
  let before = null, line = null;
  function show(one) {
    const now = performance.now();
    badge.className = `badge ${STATES[one.state] ?? ""}`;
    setText(badge, one.state ?? "unknown");
    setText(kind, [one.kind, one.trigger].filter(Boolean).join(" · "));
    const rate = before && now > before.at ? Math.max(0, ((one.invocations ?? 0) - before.invocations) / ((now - before.at) / 1000)) : null;
    before = { at: now, invocations: one.invocations ?? 0 };
    fill(figures.calls, short(one.invocations), rate !== null && h("small", null, `${short(rate)}/s`));
    figures.calls.title = `${count(one.invocations)} calls`;
    if (rate !== null) {
      rates[0].push(Date.now() / 1000);
      rates[1].push(rate);
      if (rates[0].length > POINTS_MAX) rates.forEach((list) => list.shift());
    }
    plot.hidden = !rates[1].some((some) => some > 0);
    if (line) line.update();
    else if (!plot.hidden) line = spark(plot, () => rates);
    setText(figures.failures, count(one.failures));
    figures.failures.style.color = one.failures > 0 ? "var(--red)" : "";
    setText(figures.duration, millis(one.durationMs?.mean));
    figures.duration.title = `99 of 100 within ${millis(one.durationMs?.p99)}`;
    setText(figures.lag, one.lag === null || one.lag === undefined ? "–" : short(one.lag));
    fill(error, one.error && h("p", { class: "problem" }, one.error));
    const isAtEnd = logs.scrollHeight - logs.scrollTop - logs.clientHeight < 30;
    fill(logs, (one.logs ?? []).slice(-60).map((line) => h("p", { class: line.level }, h("time", null, time(line.at)), h("span", null, line.text))));
    logs.hidden = (one.logs ?? []).length === 0;
    if (isAtEnd) logs.scrollTop = logs.scrollHeight;
  }
  return { element, show, leave: () => line?.destroy() };
}

/** The view. */
export function functions(element) {
  const grid = h("div", { class: "function-grid" });
  const page = h("div", { class: "page" }, grid);
  append(element, [page]);
  const cards = new Map();
  const stop = api.poll(REFRESH_MS, async (signal) => {
    let answer;
    try {
      answer = await api.get("functions", signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      fill(page, error.status === 404 ? empty("functions", "No functions here", "This node runs without a functions tier.") : problem(error));
      return;
    }
    const list = answer.functions ?? [];
    if (!grid.isConnected) fill(page, grid);
    if (list.length === 0) fill(page, empty("functions", "No functions yet", "Deployed functions show here with their figures and logs."));
    const names = new Set();
    for (const one of list) {
      const key = `${one.app ?? ""}/${one.name}`;
      names.add(key);
      if (!cards.has(key)) {
        cards.set(key, card(one.name));
        grid.append(cards.get(key).element);
      }
      cards.get(key).show(one);
    }
    for (const [key, one] of cards) {
      if (names.has(key)) continue;
      one.leave();
      one.element.remove();
      cards.delete(key);
    }
  });
  return { leave: () => { stop(); cards.forEach((one) => one.leave()); } };
}
