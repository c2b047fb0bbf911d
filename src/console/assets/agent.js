// What all pages of one agent have: its name, its status as it changes, its commands.

import { $, busy, fill, h, number } from "./dom.js";
import { agentId, read, to } from "./api.js";
import { follow } from "./stream.js";
import { attempt, start } from "./shell.js";
import { badge, command, may, NAMES, sure } from "./status.js";
import { empty } from "./table.js";

const listeners = new Set();
const REFRESH_MS = 10_000;

export const agent = { record: null, etag: null };

/** Calls with the record, now and whenever it changes. */
export function watch(listener) {
  listeners.add(listener);
  if (agent.record) listener(agent.record, agent.record);
}

let reading = null;
/** Reads the record again; requests at the same time share the answer. */
export function refresh() {
  reading ??= read(`/api/agents/${agentId}`)
    .then(({ body, etag }) => {
      const before = agent.record;
      Object.assign(agent, { record: body, etag });
      head(body);
      for (const listener of listeners) listener(body, before ?? body);
    })
    .catch((error) => {
      if (error.status === 404) return gone();
      throw error;
    })
    .finally(() => (reading = null));
  return reading;
}

/** Takes over a record that came with an answer. */
export function took(record) {
  if (record?.id === agentId) refresh().catch(() => {});
}

function gone() {
  const name = agent.record?.name;
  document.title = "No such agent · zeroone";
  fill($("main"), h("h1", {}, name ? `${name} is gone` : "There is no such agent"), empty(name ? "It was deleted." : "It was deleted, or it belongs to somebody else."), h("p", {}, h("a", { href: to("/") }, "To your agents")));
}

function head(record) {
  $("#agent-name").textContent = record.name;
  document.title = `${record.name}: ${$('.tabs [aria-current="page"]')?.textContent ?? "Agent"} · zeroone`;
  if ($("#agent-status").textContent !== badge(record.status).textContent) fill($("#agent-status"), badge(record.status));
  const use = record.status === "RUNNING" && record.memoryMb !== null ? ` · CPU ${number(record.cpuPercent, 1)} %, ${number(record.memoryMb)} MiB` : "";
  $("#agent-about").textContent = `${record.provider} · ${record.model}${use}`;
  const wanted = ["start", "stop", "restart"].filter((name) => may[name](record.status));
  const bar = $("#agent-commands");
  if (bar.dataset.shown === wanted.join()) return;
  bar.dataset.shown = wanted.join();
  fill(bar, wanted.map((name) => h("button", { type: "button", "data-command": name, onclick: (event) => run(event.currentTarget, name) }, NAMES[name])));
}

/** Asks, sends a command, and shows what becomes of it. */
export function run(button, name) {
  return busy(button, async () => {
    if (!(await sure(name, agent.record.name))) return;
    took(await attempt(() => command(agentId, name)));
  });
}

/** Fills a page of the agent. `transition` gets each new line of its timeline. */
export function page(fillPage, { transition = () => {} } = {}) {
  start(async (who) => {
    $('.tabs [aria-current="page"]')?.scrollIntoView({ inline: "center", block: "nearest" });
    await refresh();
    if (!agent.record) return;
    if (agent.record.userId !== who.id) {
      $("#foreign").hidden = false;
      $("#foreign").textContent = "This agent belongs to another user. What you do here is in the audit.";
    }
    await fillPage(who);
    const update = () => refresh().catch(() => {});
    follow(`/api/agents/${agentId}/events`, {
      on: ({ event, data }) => {
        if (event !== "transition") return;
        transition(data);
        update();
      },
      opened: update,
      gone,
    });
    setInterval(() => document.hidden || update(), REFRESH_MS);
    addEventListener("service-back", update);
  });
}
