// A new agent.

import { $, busy } from "./dom.js";
import { call, once, to } from "./api.js";
import { start } from "./shell.js";
import { channels, check, showProblem, values, wire, wireChannels } from "./fields.js";

start(async (who) => {
  const form = $("#new");
  wire(form);
  wireChannels(form);
  const most = who.limits.maxAgents;
  const size = `${who.limits.cpu} of a core and ${who.limits.memoryMb} MiB of memory`;
  const cores = who.limits.cpu === 1 ? `one core and ${who.limits.memoryMb} MiB of memory` : who.limits.cpu > 1 ? `${who.limits.cpu} cores and ${who.limits.memoryMb} MiB of memory` : size;
  $("#plan").textContent = `Your plan ${who.plan} gives each agent ${cores}; ${most === null ? `you have ${who.used} agents, without a limit` : `you use ${who.used} of ${most} agents`}.`;
  if (most !== null && who.used >= most) {
    await showProblem(form, null);
    $("#problem").hidden = false;
    $("#problem").textContent = "Your plan has no room for another agent. Delete one, or ask an administrator for another plan.";
  }
  // One name for the whole form: sent twice, it is still one agent.
  let name = once();
  form.addEventListener("input", () => (name = once()));
  form.removeAttribute("aria-busy");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!check(form)) return;
    busy($("button.primary", form), async () => {
      await showProblem(form, null);
      const filled = Object.fromEntries(Object.entries(values(form)).filter(([, value]) => value !== null));
      const wanted = channels(form);
      const key = form.elements.apiKey.value.trim();
      const slug = form.elements.slug.value.trim();
      const json = { ...filled, ...(key ? { apiKey: key } : {}), ...(slug ? { slug } : {}), ...(Object.keys(wanted).length ? { channels: wanted } : {}) };
      try {
        const agent = await call("/api/agents", { method: "POST", json, headers: name });
        location.assign(to(`/agents/${agent.id}`));
      } catch (error) {
        if (error.status !== 401) await showProblem(form, error);
      }
    });
  });
});
