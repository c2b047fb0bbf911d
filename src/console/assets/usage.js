// What an agent has used over time, as plots.

import { $, absolute, bytes, fill, h, number, svg } from "./dom.js";
import { agentId, call, query } from "./api.js";
import { failed } from "./shell.js";
import { page } from "./agent.js";
import { empty } from "./table.js";

const HOUR = 3600;
/** How far back, and how much time is one point. */
const SPANS = { "1h": [HOUR, 60], "24h": [24 * HOUR, 300], "7d": [7 * 24 * HOUR, HOUR], "30d": [30 * 24 * HOUR, 6 * HOUR] };
const WIDTH = 640;
const HEIGHT = 140;

page(async () => {
  for (const choice of document.querySelectorAll('[name="span"]')) choice.addEventListener("change", load);
  await load();
  setInterval(() => document.hidden || load(), 60_000);
});

async function load() {
  const chosen = document.querySelector('[name="span"]:checked').value;
  const [length, step] = SPANS[chosen];
  const to = new Date();
  const from = new Date(to - length * 1000);
  try {
    const answer = await call(query(`/api/agents/${agentId}/usage`, { from: from.toISOString(), to: to.toISOString(), step: `${step}s` }));
    show(answer, from, to);
  } catch (error) {
    if (error.status === 404) return fill($("#plots"), empty("This service keeps no figures over time."));
    if (error.status !== 401) await failed($("#plots"), error, load);
  }
}

function show(answer, from, to) {
  const points = (answer.data ?? answer.points ?? []).map((it) => ({ ...it, at: new Date(it.time ?? it.at ?? it.from) }));
  if (!points.length) return fill($("#plots"), empty("Nothing was measured in this time.", "Figures come once a minute while the agent runs."));
  const all = [
    plot("Processor", "percent of a core", points, [["CPU", (it) => it.cpuPercent ?? it.cpu?.average]], (value) => `${number(value, 1)} %`, from, to),
    plot("Memory", "in use", points, [["Memory", (it) => it.memoryMb ?? it.memory?.average]], (value) => bytes(value * 1024 * 1024), from, to),
    plot("Messages", "by outcome", points, [["Answered", (it) => it.messages?.answered ?? it.messages?.ok], ["Failed", (it) => it.messages?.failed ?? it.messages?.error]], (value) => number(value), from, to),
    plot("Time to an answer", "half of them, and all but one in twenty", points, [["Half", (it) => it.latency?.p50Ms ?? it.latencyMs?.p50], ["95 %", (it) => it.latency?.p95Ms ?? it.latencyMs?.p95]], (value) => (value < 1000 ? `${number(value)} ms` : `${number(value / 1000, 1)} s`), from, to),
    plot("Tokens", "in and out", points, [["In", (it) => it.tokens?.input ?? it.tokensIn], ["Out", (it) => it.tokens?.output ?? it.tokensOut]], (value) => number(value), from, to),
    plot("Cost", "as far as the provider's prices are known", points, [["Dollars", (it) => it.costUsd]], (value) => `$${number(value, 4)}`, from, to),
  ];
  fill($("#plots"), h("div", { class: "plots" }, all.filter(Boolean)));
}

/** A picture with its figures in words; nothing where nothing was measured. */
function plot(title, unit, points, lines, format, from, to) {
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
    h("p", { class: "hint ends" }, h("span", {}, absolute(from)), h("span", {}, "now")),
    h("p", { class: "hint keys" }, series.map(([name, values], at) => h("span", {}, h("span", { class: `key line-${at}`, "aria-hidden": "true" }), `${name}: ${format(values.at(-1)[1])}`))),
  );
}
