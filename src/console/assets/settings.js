// Changing an agent: what changes is shown before it is saved, with what it will do.

import { $, ask, busy, fill, h, say, toast } from "./dom.js";
import { agentId, call } from "./api.js";
import { agent, page, refresh, took, watch } from "./agent.js";
import { check, showProblem, values, wire } from "./fields.js";
import { table } from "./table.js";

const NAMES = {
  name: "Name",
  provider: "Provider",
  model: "Model",
  apiKey: "API key",
  providerUrl: "Address of the provider",
  temperature: "Temperature",
  maxTokens: "Longest answer",
  agentName: "What it calls itself",
  userName: "What it calls you",
  timezone: "Time zone",
  communicationStyle: "How it should write",
  memoryBackend: "Memory",
  autoSave: "Keeps without being asked",
};
/** What the agent reads when it starts; everything but its name in lists. */
const RESTARTS = Object.keys(NAMES).filter((name) => name !== "name");

const form = $("#settings");
/** The record that the form was filled from, and its entity tag. */
let filled = null;
let etag = null;

function load() {
  filled = agent.record;
  etag = agent.etag;
  for (const name of Object.keys(NAMES)) {
    const input = form.elements[name];
    if (name === "autoSave") input.checked = filled.autoSave;
    else if (name === "apiKey") input.value = "";
    else input.value = filled[name] ?? "";
  }
  form.elements.apiKey.placeholder = filled.hasApiKey ? "Stored; cannot be shown" : "None stored";
  form.removeAttribute("aria-busy");
}

/** What the form would change. */
function changes() {
  const found = Object.fromEntries(Object.entries(values(form)).filter(([name, value]) => (filled[name] ?? null) !== value));
  const key = form.elements.apiKey.value.trim();
  return key ? { ...found, apiKey: key } : found;
}

function shown(name, value) {
  if (name === "apiKey") return "(a new key)";
  if (name === "autoSave") return value ? "yes" : "no";
  return value === null || value === undefined || value === "" ? "(none)" : String(value);
}

page(async () => {
  const follow = wire(form);
  load();
  follow();
  const nothingYet = () => !Object.keys(changes()).length;
  // Changed elsewhere: shown at once where nothing would be lost.
  watch((record) => {
    if (record.generation === filled.generation) return;
    if (nothingYet()) load();
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    load();
    follow();
    showProblem(form, null);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (check(form)) busy($("button.primary", form), review);
  });
  addEventListener("beforeunload", (event) => nothingYet() || event.preventDefault());
});

async function review() {
  await showProblem(form, null);
  const wanted = changes();
  const names = Object.keys(wanted);
  if (!names.length) return toast("Nothing was changed.");
  const restarts = names.some((name) => RESTARTS.includes(name)) && ["RUNNING", "STARTING"].includes(agent.record.status);
  const rows = names.map((name) => [NAMES[name], name === "apiKey" ? (filled.hasApiKey ? "(the stored key)" : "(none)") : shown(name, filled[name]), shown(name, wanted[name])]);
  const sure = await ask({
    title: "Save these changes?",
    body: [
      table("Changes", ["What", "Before", "After"], rows),
      h("p", { class: restarts ? "warn" : "hint" }, restarts ? "The agent restarts for this: some seconds without answers. Messages are held, memory stays." : "The agent does not restart for this."),
    ],
    action: restarts ? "Save and restart" : "Save",
    danger: false,
  });
  if (!sure) return undefined;
  try {
    const record = await call(`/api/agents/${agentId}`, { method: "PATCH", json: wanted, headers: { "If-Match": etag } });
    filled = record;
    took(record);
    await refresh();
    load();
    toast(restarts ? "Saved. The agent restarts." : "Saved.");
  } catch (error) {
    if (error.status === 412) return changedElsewhere();
    if (error.status !== 401) await showProblem(form, error);
  }
  return undefined;
}

/** Somebody else was faster: what they changed is said, and what is typed here stays. */
async function changedElsewhere() {
  const before = filled;
  await refresh();
  const names = Object.keys(NAMES).filter((name) => name !== "apiKey" && (before[name] ?? null) !== (agent.record[name] ?? null));
  const mine = changes();
  filled = agent.record;
  etag = agent.etag;
  for (const name of names) {
    if (name in mine) continue;
    if (name === "autoSave") form.elements[name].checked = filled[name];
    else form.elements[name].value = filled[name] ?? "";
  }
  say($("#problem"), `Somebody else changed ${names.map((name) => NAMES[name]).join(", ") || "the agent"} meanwhile. Their values are in the form now, yours stay where you typed some. Review your changes again.`);
}
