// Nodes, partitions and consumer groups.

import * as api from "../api.js";
import { append, empty, fill, h, icon, panel, setText } from "../dom.js";
import { ago, bytes, count, short } from "../format.js";
import * as store from "../store.js";
import { table } from "../table.js";

const GROUPS_MS = 5000;
const COLORS = 6;

/** Where a node stands among all decides its colour. */
const chip = (node, isOn = true, name = "node ") => {
  const at = store.status?.nodes.findIndex((one) => one.node === node) ?? -1;
  return h("span", { class: `node-chip ${at >= 0 && isOn ? `n${(at % COLORS) + 1}` : "off"}` }, node === null || node === undefined ? "none" : `${name}${node}`);
};

function nodeCard(node, status) {
  const leads = status.partitions.filter((row) => row.leader === node.node).length;
  const holds = status.partitions.filter((row) => row.replicas.includes(node.node)).length;
  const state = node.draining ? ["warn", "draining"] : node.alive ? ["good", "up"] : ["bad", "not reached"];
  return h("section", { class: "panel node-card", "aria-label": `Node ${node.node}` },
    h("div", { class: "line" }, icon("server"), h("h2", null, chip(node.node)), node.node === status.controlLeader && h("span", { class: "badge", title: "Leads the control group" }, "control"),
      h("span", { class: "spring" }), h("span", { class: `badge ${state[0]}` }, h("span", { class: "dot" }), state[1])),
    h("div", { class: "addr", title: node.client }, node.client || "–"),
    h("div", { class: "note" }, `leads ${leads}, holds ${holds} of ${status.partitions.length}`, node.zone && ` · ${node.zone}`));
}

function lagCell(cell, lag, top) {
  const bar = h("i");
  bar.style.width = `${Math.min(100, (lag / Math.max(1, top)) * 100)}%`;
  fill(cell, count(lag), " ", h("span", { class: `bar ${lag > 0 ? "warn" : ""}`, "aria-hidden": "true" }, bar));
}

function partitionTable() {
  const { element, body } = table("Partitions", [["Partition"], ["Leader"], ["Replicas"], ["Term", "num only-wide"], ["Records/s", "num"], ["Records", "num"], ["Bytes", "num only-wide"], ["Lag of replicas", "num"], ["Last record", "num only-wide"]]);
  const rows = new Map();
  function rowOf(partition) {
    if (!rows.has(partition)) {
      const cells = {
        leader: h("td"), replicas: h("td"), term: h("td", { class: "num only-wide" }), rate: h("td", { class: "num" }), records: h("td", { class: "num" }),
        bytes: h("td", { class: "num only-wide" }), lag: h("td", { class: "num" }), last: h("td", { class: "num only-wide" }),
      };
      const tr = h("tr", { tabindex: "0" }, h("td", null, h("b", null, partition)), Object.values(cells));
      body.append(tr);
      rows.set(partition, { cells, shape: "" });
    }
    return rows.get(partition);
  }
  function showStatus(status) {
    for (const one of status.partitions) {
      const found = rowOf(one.partition);
      const shape = JSON.stringify([one.leader, one.replicas, one.info?.learners, status.nodes.map((node) => node.alive)]);
      if (found.shape === shape) continue;
      found.shape = shape;
      const alive = new Set(status.nodes.filter((node) => node.alive).map((node) => node.node));
      fill(found.cells.leader, one.leader === null ? h("span", { class: "badge bad" }, "no leader") : chip(one.leader));
      fill(found.cells.replicas, h("span", { class: "replicas" }, one.replicas.map((node) => chip(node, alive.has(node), ""))),
        one.info?.learners.length > 0 && h("span", { class: "badge warn" }, `filling ${one.info.learners.join(", ")}`));
    }
    showHeads();
  }
  function showHeads() {
    const top = Math.max(10, ...[...store.heads.values()].map((head) => head.replicationLag ?? 0));
    for (const [partition, { cells }] of rows) {
      const head = store.heads.get(partition);
      if (!head) continue;
      setText(cells.term, head.term ?? "–");
      setText(cells.rate, short(head.rate));
      setText(cells.records, count(head.end - head.start));
      setText(cells.bytes, bytes(head.bytes));
      lagCell(cells.lag, head.replicationLag ?? 0, top);
      setText(cells.last, ago(head.lastEnqueued, Date.now() + store.skew));
    }
  }
  return { element, showStatus, showHeads };
}

function groupPanel() {
  const content = h("div");
  const element = panel("Consumer groups", h("span", { class: "note" }, "how far readers are behind"), content);
  function show(answer) {
    if (answer.groups.length === 0) {
      fill(content, empty("partitions", "No consumer groups", "A group shows here with its first checkpoint."));
      return;
    }
    const { element: wrap } = table("Consumer groups", [["Group"], ["Members"], ["Partitions", "num"], ["Lag", "num"], ["Most behind", "num only-wide"]],
      answer.groups.map((group) => {
        const worst = group.partitions.reduce((most, one) => (one.lag > (most?.lag ?? -1) ? one : most), null);
        const lag = h("td", { class: "num" });
        lagCell(lag, group.lag, Math.max(...answer.groups.map((one) => one.lag)));
        return h("tr", { tabindex: "0" }, h("td", null, h("b", null, group.group)),
          h("td", { title: group.state?.members.map((member) => `${member.name}: ${member.partitions.join(", ")}`).join("\n") }, group.state ? count(group.state.members.length) : "–"),
          h("td", { class: "num" }, count(group.partitions.length)), lag,
          h("td", { class: "num only-wide" }, worst && worst.lag > 0 ? `partition ${worst.partition}: ${count(worst.lag)}` : "–"));
      }));
    fill(content, wrap, answer.more && h("p", { class: "pad note" }, "There are more groups than are shown."));
  }
  return { element, show };
}

/** The view. */
export function partitions(element) {
  const nodes = h("div", { class: "nodes" });
  const list = partitionTable(), groups = groupPanel();
  append(element, [h("div", { class: "page" }, nodes, panel("Partitions", null, list.element), groups.element)]);
  let shape = "";
  const show = (status) => {
    const now = JSON.stringify([status.nodes, status.partitions.map((row) => [row.leader, row.replicas]), status.controlLeader]);
    if (now !== shape) fill(nodes, status.nodes.map((node) => nodeCard(node, status)));
    shape = now;
    list.showStatus(status);
  };
  if (store.status) show(store.status);
  const off = [store.on("status", show), store.on("rates", list.showHeads)];
  const stop = api.poll(GROUPS_MS, async (signal) => groups.show(await api.get("groups", signal)));
  return { leave: () => { off.forEach((one) => one()); stop(); } };
}
