// A new agent.

import { $, busy, h, say } from "./dom.js";
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
  form.addEventListener("input", () => say($("#checked"), ""));
  $("#check").addEventListener("click", (event) => {
    if (check(form)) busy(event.currentTarget, () => test(form));
  });
  form.removeAttribute("aria-busy");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!check(form)) return;
    busy($("button.primary", form), async () => {
      await showProblem(form, null);
      try {
        const agent = await call("/api/agents", { method: "POST", json: wanted(form), headers: name });
        location.assign(to(`/agents/${agent.id}`));
      } catch (error) {
        if (error.status !== 401) await showProblem(form, error);
      }
    });
  });
});

/** The agent that the form describes, as the API takes it. */
function wanted(form) {
  const filled = Object.fromEntries(Object.entries(values(form)).filter(([, value]) => value !== null));
  const open = channels(form);
  const key = form.elements.apiKey.value.trim();
  const slug = form.elements.slug.value.trim();
  return { ...filled, ...(key ? { apiKey: key } : {}), ...(slug ? { slug } : {}), ...(Object.keys(open).length ? { channels: open } : {}) };
}

/** Asks the provider whether it takes the key and has the model. */
async function test(form) {
  const place = $("#checked");
  await showProblem(form, null);
  place.className = "checked";
  say(place, "Asking the provider …");
  try {
    const { ok, reason, modelKnown, models } = await call("/api/agents/check", { method: "POST", json: wanted(form) });
    if (models.length) $("#models").replaceChildren(...models.map((value) => h("option", { value })));
    const model = form.elements.model.value.trim();
    if (!ok) say(place, `This would not work: ${reason}`);
    else if (modelKnown === false) say(place, `The provider takes the key, but ${model} is not among the ${models.length} models that it names. The list of models now has them.`);
    else say(place, modelKnown ? `The provider takes the key and has ${model}.` : "The provider answers. It names no models, so the model was not checked.");
    place.className = `checked ${ok && modelKnown !== false ? "good" : "doubtful"}`;
  } catch (error) {
    say(place, "");
    if (error.status !== 401) await showProblem(form, error);
  }
}
