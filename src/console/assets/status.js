// An agent's status in words, and the commands that it can be given.

import { ask, h } from "./dom.js";
import { call } from "./api.js";

const WORDS = { PENDING: "Pending", STARTING: "Starting", RUNNING: "Running", STOPPING: "Stopping", STOPPED: "Stopped", ERROR: "Error" };

export const word = (status) => WORDS[status] ?? status;

export const badge = (status) => h("span", { class: `badge ${String(status).toLowerCase()}`, "data-status": status }, h("span", { class: "dot", "aria-hidden": "true" }), word(status));

/** What each command would do, as far as the status alone tells. */
export const may = {
  start: (status) => ["STOPPED", "ERROR"].includes(status),
  stop: (status) => ["PENDING", "STARTING", "RUNNING", "ERROR"].includes(status),
  restart: (status) => status === "RUNNING",
  delete: () => true,
};

export const NAMES = { start: "Start", stop: "Stop", restart: "Restart", delete: "Delete" };

/** Sends a command. */
export function command(id, name) {
  if (name === "delete") return call(`/api/agents/${id}`, { method: "DELETE" });
  return call(`/api/agents/${id}/${name}`, { method: "POST" });
}

/** Asks before what ends something. */
export function sure(name, what, typed = null) {
  if (name === "start") return Promise.resolve(true);
  const bodies = {
    stop: "It ends until somebody starts it again, and refuses messages meanwhile. Memory and files stay.",
    restart: "It ends and is started anew, with a new token. Memory and files stay; messages are held meanwhile.",
    delete: "Memory, files and secrets are removed. This cannot be undone.",
  };
  return ask({ title: `${NAMES[name]} ${what}?`, body: bodies[name], action: NAMES[name], type: typed, danger: name !== "restart" });
}

/** The reason of a status; nothing where all is as it should be. */
export const reason = (agent) => (agent.status === "RUNNING" ? "" : (agent.statusReason?.message ?? ""));
