// What an agent uses: now, as plots that grow while one looks, and over the last hours and days.

import { $, bytes, fill, h, number, say } from "./dom.js";
import { agentId, call, sentence } from "./api.js";
import { follow } from "./stream.js";
import { agent, page, watch } from "./agent.js";
import { empty } from "./table.js";
import { plot } from "./plot.js";

/** Samples that are kept: half an hour, one every two seconds. */
const KEPT = 900;
/** The least time that a plot shows. */
const SHORTEST_MS = 60_000;
/** Figures over time are read again this often: they are of whole minutes. */
const AGAIN_MS = 60_000;

/** How far back, and how long a point is, in seconds. */
const RANGES = { hour: [3600, 60], day: [86_400, 300], month: [30 * 86_400, 3 * 3600] };

const samples = [];
let range = "now";
let turn = 0;

page(async () => {
  const choice = $("#range");
  choice.addEventListener("change", () => {
    range = choice.value;
    show();
  });
  watch(() => range === "now" && !samples.length && show());
  follow(`/api/agents/${agentId}/stats?stream=true`, {
    on({ event, data }) {
      if (event !== "usage") return;
      samples.push(sample(data, samples.at(-1)));
      if (samples.length > KEPT) samples.shift();
      if (range === "now") show();
    },
  });
  setInterval(() => range !== "now" && show(), AGAIN_MS);
});

const mebibytes = (value) => bytes(value * 1024 * 1024);
const percent = (value) => `${number(value, 1)} %`;
const milliseconds = (value) => (value < 1000 ? `${number(value)} ms` : `${number(value / 1000, 1)} s`);
const draw = (plots, otherwise) => fill($("#plots"), plots.some(Boolean) ? h("div", { class: "plots" }, plots) : otherwise);

function show() {
  turn += 1;
  if (range === "now") live();
  else past(turn);
}

/** A sample, with what went over the network since the one before. */
function sample(data, before) {
  const at = new Date(data.at);
  const seconds = before ? (at - before.at) / 1000 : 0;
  // Counters begin anew when the agent does.
  const rate = (now, then) => (seconds > 0 && now >= then ? (now - then) / seconds : null);
  return { ...data, at, received: rate(data.networkRxBytes, before?.networkRxBytes), sent: rate(data.networkTxBytes, before?.networkTxBytes) };
}

function live() {
  say($("#usage-problem"), null);
  if (!samples.length) {
    const runs = agent.record.status === "RUNNING";
    draw([], empty(runs ? "Waiting for the first figures." : "There are no figures while it does not run.", "They come every two seconds while it runs. Choose another time to see what was."));
    return;
  }
  const to = samples.at(-1).at;
  const shared = { points: samples, from: new Date(Math.min(samples[0].at, to - SHORTEST_MS)), to };
  const limit = samples.at(-1).memoryLimitMb;
  const network = samples.some((it) => it.networkRxBytes || it.networkTxBytes);
  draw([
    plot({ ...shared, title: "Processor", unit: "percent of a core", lines: [["Processor", (it) => it.cpuPercent]], format: percent }),
    plot({ ...shared, title: "Memory", unit: limit ? `in use, of ${mebibytes(limit)}` : "in use", lines: [["Memory", (it) => it.memoryMb]], format: mebibytes }),
    network ? plot({ ...shared, title: "Network", unit: "a second", lines: [["Received", (it) => it.received], ["Sent", (it) => it.sent]], format: bytes }) : null,
    plot({ ...shared, title: "Processes", unit: "and threads", lines: [["Processes", (it) => it.pids]] }),
  ]);
}

async function past(mine) {
  const [seconds, step] = RANGES[range];
  const to = new Date();
  const from = new Date(to - seconds * 1000);
  let figures;
  try {
    figures = await call(`/api/agents/${agentId}/usage?from=${from.toISOString()}&step=${step}s`);
  } catch (error) {
    const text = await sentence(error);
    if (mine === turn) say($("#usage-problem"), text);
    return;
  }
  // Somebody has chosen another time meanwhile.
  if (mine !== turn) return;
  say($("#usage-problem"), null);
  const points = figures.data.map((it) => ({ ...it, at: it.time }));
  const talked = points.some((it) => it.messages.answered || it.messages.failed);
  const shared = { points, from, to, gap: figures.stepSecs * 1500 };
  const each = `in each ${step < 3600 ? `${step / 60} min` : `${step / 3600} h`}`;
  draw(
    [
      plot({ ...shared, title: "Processor", unit: "percent of a core, on average", lines: [["Processor", (it) => it.cpuPercent]], format: percent }),
      plot({ ...shared, title: "Memory", unit: "the most", lines: [["Memory", (it) => it.memoryMb]], format: mebibytes }),
      talked ? plot({ ...shared, title: "Messages", unit: each, lines: [["Answered", (it) => it.messages.answered], ["Failed", (it) => it.messages.failed]] }) : null,
      plot({ ...shared, title: "Time to an answer", unit: "up to its first piece", lines: [["Half of them", (it) => it.latency.p50Ms], ["All but one in twenty", (it) => it.latency.p95Ms]], format: milliseconds }),
    ],
    empty("Nothing was measured in this time.", "Figures are written each minute while the agent runs, and kept for thirty days."),
  );
}
