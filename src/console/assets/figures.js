// Figures over time, of an agent or of the service, as plots.

import { bytes, number } from "./dom.js";
import { call } from "./api.js";
import { plot } from "./plot.js";

/** How far back, and how long a point is, in seconds. */
const RANGES = { hour: [3600, 60], day: [86_400, 300], month: [30 * 86_400, 3 * 3600] };

export const mebibytes = (value) => bytes(value * 1024 * 1024);
export const percent = (value) => `${number(value, 1)} %`;
const milliseconds = (value) => (value < 1000 ? `${number(value)} ms` : `${number(value / 1000, 1)} s`);
const dollars = (value) => `$${number(value, value < 1 ? 4 : 2)}`;

/** The plots of what this address tells of the range; null in the place of those that have nothing. */
export async function past(path, range) {
  const [seconds, step] = RANGES[range];
  const to = new Date();
  const from = new Date(to - seconds * 1000);
  const figures = await call(`${path}?from=${from.toISOString()}&step=${step}s`);
  const points = figures.data.map((it) => ({ ...it, at: it.time }));
  const some = (read) => points.some((it) => read(it));
  const shared = { points, from, to, gap: figures.stepSecs * 1500 };
  const each = `in each ${step < 3600 ? `${step / 60} min` : `${step / 3600} h`}`;
  return [
    plot({ ...shared, title: "Processor", unit: "percent of a core, on average", lines: [["Processor", (it) => it.cpuPercent]], format: percent }),
    plot({ ...shared, title: "Memory", unit: "the most", lines: [["Memory", (it) => it.memoryMb]], format: mebibytes }),
    some((it) => it.messages.answered || it.messages.failed) ? plot({ ...shared, title: "Messages", unit: each, lines: [["Answered", (it) => it.messages.answered], ["Failed", (it) => it.messages.failed]] }) : null,
    plot({ ...shared, title: "Time to an answer", unit: "up to its first piece", lines: [["Half of them", (it) => it.latency.p50Ms], ["All but one in twenty", (it) => it.latency.p95Ms]], format: milliseconds }),
    some((it) => it.tokens) ? plot({ ...shared, title: "Tokens", unit: `${each}, as the agent counts them`, lines: [["Tokens", (it) => it.tokens]] }) : null,
    some((it) => it.costUsd) ? plot({ ...shared, title: "Cost", unit: `${each}, by the prices that the agent knows`, lines: [["Cost", (it) => it.costUsd]], format: dollars }) : null,
  ];
}
