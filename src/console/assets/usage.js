// What an agent uses: now, as plots that grow while one looks, and over the last hours and days.

import { $, bytes, fill, h, say } from "./dom.js";
import { agentId, sentence } from "./api.js";
import { follow } from "./stream.js";
import { agent, page, watch } from "./agent.js";
import { empty } from "./table.js";
import { mebibytes, past, percent } from "./figures.js";
import { plot } from "./plot.js";

/** Samples that are kept: half an hour, one every two seconds. */
const KEPT = 900;
/** The least time that a plot shows. */
const SHORTEST_MS = 60_000;
/** Figures over time are read again this often: they are of whole minutes. */
const AGAIN_MS = 60_000;

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

const draw = (plots, otherwise) => fill($("#plots"), plots.some(Boolean) ? h("div", { class: "plots" }, plots) : otherwise);

function show() {
  turn += 1;
  if (range === "now") live();
  else before(turn);
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

async function before(mine) {
  let plots;
  try {
    plots = await past(`/api/agents/${agentId}/usage`, range);
  } catch (error) {
    const text = await sentence(error);
    if (mine === turn) say($("#usage-problem"), text);
    return;
  }
  // Somebody has chosen another time meanwhile.
  if (mine !== turn) return;
  say($("#usage-problem"), null);
  draw(plots, empty("Nothing was measured in this time.", "Figures are written each minute while the agent runs, and kept for thirty days."));
}
