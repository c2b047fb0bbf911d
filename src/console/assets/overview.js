// An agent at a glance: what it does and why, what went wrong, what has happened.

import { $, absolute, facts, fill, h, number, plain, span, svg, took, when } from "./dom.js";
import { agentId, call, to } from "./api.js";
import { failed } from "./shell.js";
import { agent, page, watch } from "./agent.js";
import { badge, word } from "./status.js";
import { empty, table } from "./table.js";

/** Lines of the timeline that are shown. */
const LINES = 50;
const timeline = [];
let nextAt = null;

page(
  async () => {
    watch(showFacts);
    watch(() => soon());
    await Promise.all([explain(), incidents()]);
    setTimeout(() => timeline.length || showTimeline(), 500);
    setInterval(countdown, 500);
  },
  {
    transition(entry) {
      if (timeline.some((known) => known.seq === entry.seq)) return;
      timeline.unshift(entry);
      timeline.length = Math.min(timeline.length, 500);
      soon();
    },
  },
);

let timer = null;
function soon() {
  timer ??= setTimeout(() => {
    timer = null;
    showTimeline();
    showFacts();
    explain();
    incidents();
  }, 200);
}

async function explain() {
  try {
    const it = await call(`/api/agents/${agentId}/explain`);
    nextAt = it.nextAt ? new Date(it.nextAt) : null;
    const because = it.because ? `${it.because[0].toUpperCase()}${it.because.slice(1)}.` : "";
    const fell = it.lastError;
    fill(
      $("#explain"),
      h("p", { class: "lead" }, badge(it.status), " ", because),
      it.next ? h("p", {}, "Next: ", it.next, h("span", { id: "countdown" }), ".") : null,
      it.unknownSince ? h("p", { class: "warn" }, "The engine has not said anything about it since ", when(it.unknownSince), ".") : null,
      fell ? h("p", {}, "Last trouble: ", CAUSES_IN_WORDS[fell.cause] ?? fell.cause, fell.detail ? `, ${fell.detail}` : "", ", ", when(fell.time), ".") : null,
      it.lastLogLines.length
        ? h("details", { open: it.status !== "RUNNING" }, h("summary", {}, "Last lines of its log"), h("pre", { tabindex: "0", class: "lines" }, it.lastLogLines.map((line) => plain(line.text)).join("\n")), h("p", {}, h("a", { href: to(`/agents/${agentId}/logs`) }, "The whole log")))
        : null,
    );
    countdown();
  } catch (error) {
    if (error.status !== 404 && error.status !== 401) await failed($("#explain"), error, explain);
  }
}

function countdown() {
  const place = $("#countdown");
  if (!place) return;
  const left = nextAt ? (nextAt - Date.now()) / 1000 : null;
  const text = left === null ? "" : left > 0.5 ? ` in ${span(left)}` : ", now";
  if (place.textContent !== text) place.textContent = text;
}

function showFacts() {
  const it = agent.record;
  const up = it.status === "RUNNING" ? timeline.find((entry) => entry.to === "RUNNING" && entry.from !== "RUNNING") : null;
  facts($("#facts"), [
    ["Running since", up ? when(up.time) : null],
    ["Provider", it.providerUrl ? `${it.provider}, at ${it.providerUrl}` : it.provider],
    ["Model", it.model],
    ["Processor", it.cpuPercent === null ? null : `${number(it.cpuPercent, 1)} % of a core`],
    ["Memory in use", it.memoryMb === null ? null : `${number(it.memoryMb)} MiB`],
    ["Restarts by the service", number(it.restarts)],
    ["Last healthy", it.lastHealthAt ? when(it.lastHealthAt) : null],
    ["ZeroClaw", [it.version, it.image].filter(Boolean).join(", ")],
    ["Its own address", it.subdomain ? h("a", { href: `https://${it.subdomain}`, rel: "noreferrer" }, it.subdomain) : null],
    ["Channels", Object.keys(it.channels ?? {}).join(", ") || "none"],
    ["Slug", h("code", {}, it.slug)],
    ["Id", h("code", {}, it.id)],
    ["Made", when(it.createdAt)],
  ]);
}

/** The codes of the timeline; those that are missing here speak for themselves. */
const CAUSES_IN_WORDS = {
  created: "It was made",
  deploying: "Its place is being prepared",
  "instance-created": "Its instance was made",
  "instance-started": "Its instance was started",
  "instance-healthy": "Its gateway answers",
  paired: "The service paired with it",
  "token-valid": "Its token still works",
  recovered: "It works again",
  "start-requested": "A start was asked for",
  "stop-requested": "A stop was asked for",
  "restart-requested": "A restart was asked for",
  "delete-requested": "The deletion was asked for",
  "spec-changed": "Its settings were changed",
  stopped: "It has stopped",
  exited: "It ended by itself",
  "oom-killed": "It ran out of memory",
  "retry-due": "The next attempt is due",
  "port-taken": "Its port was taken; it gets another one",
  "health-lost": "Its gateway does not answer any more",
  "health-missed": "A health check was missed",
  "health-back": "Health checks succeed again",
  "health-timeout": "Its gateway did not come up in time",
  "start-failed": "It could not be started",
  "cannot-run": "It cannot run",
  "crash-loop": "It failed too often; nothing more is tried by itself",
  "token-refused": "Its token was refused",
  "pairing-timeout": "It could not be paired in time",
  "pairing-refused": "The pairing was refused",
  "ended-outside": "It was stopped or killed from outside",
  "instance-gone": "Its instance was removed from outside",
  "restarted-outside": "It was restarted from outside",
  "service-restarted": "The service was started anew",
  "runtime-unavailable": "What runs the agents did not answer",
  "runtime-refuses": "What runs the agents refused what the service needs",
  "no-capacity": "There was no room for it",
};

// --- incidents -------------------------------------------------------------------------------------------------------

const CAUSES = { exit: "It ended", oom: "Out of memory", probe: "Its gateway did not answer", token: "Token or pairing refused", engine: "The engine failed", operator: "Changed from outside", service: "The service failed" };
const STATES = { open: "going on", recovered: "recovered", abandoned: "given up" };
const STEPS = [
  ["detectedAt", "Noticed"],
  ["backOffAt", "Waiting"],
  ["startedAt", "Starting"],
  ["healthyAt", "Pairing"],
];

async function incidents() {
  try {
    const { data } = await call(`/api/agents/${agentId}/incidents?limit=10`);
    if (!data.length) return fill($("#incidents"), empty("Nothing went wrong so far."));
    fill($("#incidents"), h("ol", { class: "incidents" }, data.map(incident)));
  } catch (error) {
    if (error.status !== 404 && error.status !== 401) await failed($("#incidents"), error, incidents);
  }
}

function incident(it) {
  const end = it.pairedAt ?? it.endedAt ?? null;
  const total = (end ? new Date(end) : new Date()) - new Date(it.detectedAt);
  const exit = it.exitCode === null ? "" : it.exitCode > 128 ? `, signal ${it.exitCode - 128}` : `, exit status ${it.exitCode}`;
  return h(
    "li",
    { "data-state": it.state },
    h("p", {}, h("strong", {}, CAUSES[it.cause] ?? it.cause), it.detail ? ", " : `${exit}, `, STATES[it.state] ?? it.state, end ? ` after ${took(total)}` : "", ", ", when(it.detectedAt), "."),
    it.detail ? h("p", { class: "hint" }, plain(it.detail)) : null,
    bar(it, end, total),
  );
}

/** Each step as a part of one bar, and in words below it. */
function bar(it, end, total) {
  const marks = STEPS.map(([field, name]) => [it[field] ? new Date(it[field]) : null, name]).filter(([time]) => time).sort((a, b) => a[0] - b[0]);
  const until = end ? new Date(end) : new Date();
  const parts = marks.map(([time, name], at) => ({ name, from: time - marks[0][0], ms: (marks[at + 1]?.[0] ?? until) - time })).filter((part) => part.ms > 0);
  const words = parts.map((part) => `${part.name} ${took(part.ms)}`).join(", ");
  if (!parts.length || total <= 0) return null;
  const picture = svg("svg", { class: "steps", viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": words });
  for (const part of parts) picture.append(svg("rect", { class: `step ${part.name.toLowerCase()}`, x: (1000 * part.from) / total, y: 0, height: 10, width: Math.max(3, (1000 * part.ms) / total) }));
  return h("div", {}, picture, h("p", { class: "hint keys" }, parts.map((part) => h("span", {}, h("span", { class: `key ${part.name.toLowerCase()}`, "aria-hidden": "true" }), `${part.name} ${took(part.ms)}`))));
}

// --- timeline --------------------------------------------------------------------------------------------------------

function showTimeline() {
  if (!timeline.length) return fill($("#timeline"), empty("Nothing has happened yet."));
  const rows = timeline.slice(0, LINES).map((entry) => [
    h("time", { datetime: entry.time, title: entry.time }, absolute(entry.time)),
    entry.from === entry.to ? word(entry.to) : `${word(entry.from)} → ${word(entry.to)}`,
    [CAUSES_IN_WORDS[entry.cause] ?? entry.cause, entry.detail ? h("span", { class: "hint below" }, plain(entry.detail)) : null],
    String(entry.attempt),
  ]);
  fill($("#timeline"), table("Timeline, newest first", ["Time", "Status", "What happened", "Attempt"], rows));
}
