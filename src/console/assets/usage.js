// What an agent uses, as plots that grow while one looks.

import { $, bytes, clock, fill, h, number, svg } from "./dom.js";
import { agentId } from "./api.js";
import { follow } from "./stream.js";
import { agent, page, watch } from "./agent.js";
import { empty } from "./table.js";

/** Samples that are kept: half an hour, one every two seconds. */
const KEPT = 900;
/** The least time that a plot shows. */
const SHORTEST_MS = 60_000;
const WIDTH = 640;
const HEIGHT = 140;

const points = [];

page(async () => {
  watch(() => points.length || nothing());
  follow(`/api/agents/${agentId}/stats?stream=true`, {
    on({ event, data }) {
      if (event !== "usage") return;
      points.push(sample(data, points.at(-1)));
      if (points.length > KEPT) points.shift();
      show();
    },
  });
});

function nothing() {
  const runs = agent.record.status === "RUNNING";
  fill($("#plots"), empty(runs ? "Waiting for the first figures." : "There are no figures while it does not run.", "They come every two seconds while it runs, and are kept as long as this page is open."));
}

/** A sample, with what went over the network since the one before. */
function sample(data, before) {
  const at = new Date(data.at);
  const seconds = before ? (at - before.at) / 1000 : 0;
  // Counters begin anew when the agent does.
  const rate = (now, then) => (seconds > 0 && now >= then ? (now - then) / seconds : null);
  return { ...data, at, received: rate(data.networkRxBytes, before?.networkRxBytes), sent: rate(data.networkTxBytes, before?.networkTxBytes) };
}

function show() {
  const to = points.at(-1).at;
  const from = new Date(Math.min(points[0].at, to - SHORTEST_MS));
  const mebibytes = (value) => bytes(value * 1024 * 1024);
  const limit = points.at(-1).memoryLimitMb;
  const network = points.some((it) => it.networkRxBytes || it.networkTxBytes);
  const all = [
    plot("Processor", "percent of a core", [["Processor", (it) => it.cpuPercent]], (value) => `${number(value, 1)} %`, from, to),
    plot("Memory", limit ? `in use, of ${mebibytes(limit)}` : "in use", [["Memory", (it) => it.memoryMb]], mebibytes, from, to),
    network ? plot("Network", "a second", [["Received", (it) => it.received], ["Sent", (it) => it.sent]], bytes, from, to) : null,
    plot("Processes", "and threads", [["Processes", (it) => it.pids]], (value) => number(value), from, to),
  ];
  fill($("#plots"), h("div", { class: "plots" }, all));
}

/** A picture with its figures in words; nothing where nothing was measured. */
function plot(title, unit, lines, format, from, to) {
  const series = lines.map(([name, read]) => [name, points.map((it) => [it.at, read(it)]).filter(([, value]) => value !== null && value !== undefined)]).filter(([, values]) => values.length);
  if (!series.length) return null;
  const most = Math.max(...series.flatMap(([, values]) => values.map(([, value]) => value)), 0);
  const top = most === 0 ? 1 : most * 1.1;
  const x = (at) => (WIDTH * (at - from)) / (to - from);
  const y = (value) => HEIGHT - (HEIGHT * value) / top;
  const words = series.map(([name, values]) => `${name}: now ${format(values.at(-1)[1])}, at most ${format(Math.max(...values.map(([, value]) => value)))}`).join(". ");
  const picture = svg("svg", { class: "plot", viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}. ${words}` });
  for (const part of [0, 0.5, 1]) picture.append(svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }));
  series.forEach(([, values], at) => {
    const path = values.map(([time, value], n) => `${n ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    picture.append(svg("path", { class: `line line-${at}`, d: values.length === 1 ? `${path}h4` : path }));
  });
  return h(
    "figure",
    { class: "card" },
    h("figcaption", {}, h("strong", {}, title), ` ${unit}`),
    h("p", { class: "hint top-of-plot" }, format(top)),
    picture,
    h("p", { class: "hint ends" }, h("span", {}, clock(from)), h("span", {}, clock(to))),
    h("p", { class: "hint keys" }, series.map(([name, values], at) => h("span", {}, h("span", { class: `key line-${at}`, "aria-hidden": "true" }), `${name}: ${format(values.at(-1)[1])}`))),
  );
}
