// Where people can write to an agent.

import { $, ask, busy, toast } from "./dom.js";
import { agentId, call } from "./api.js";
import { agent, page, refresh, took } from "./agent.js";
import { channels, check, showChannels, showProblem, wireChannels } from "./fields.js";

const form = $("#channels");

page(async (who) => {
  wireChannels(form);
  showChannels(form, agent.record.channels);
  form.removeAttribute("aria-busy");
  if (agent.record.channels === null) return unreadable("The stored channels cannot be opened. What you save here replaces them.");
  if (agent.record.userId !== who.id && Object.keys(agent.record.channels).length) {
    unreadable("Tokens are shown to the agent's owner only. To change a channel enter its tokens again.");
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (check(form)) busy($("button.primary", form), save);
  });
});

function unreadable(text) {
  $("#problem").hidden = false;
  $("#problem").textContent = text;
}

async function save() {
  await showProblem(form, null);
  const wanted = channels(form);
  const restarts = ["RUNNING", "STARTING"].includes(agent.record.status);
  if (restarts) {
    const sure = await ask({ title: "Save the channels?", body: "The agent restarts for this: some seconds without answers.", action: "Save and restart", danger: false });
    if (!sure) return;
  }
  try {
    took(await call(`/api/agents/${agentId}`, { method: "PATCH", json: { channels: wanted } }));
    await refresh();
    showChannels(form, agent.record.channels);
    toast(restarts ? "Saved. The agent restarts." : "Saved.");
  } catch (error) {
    if (error.status !== 401) await showProblem(form, error);
  }
}
