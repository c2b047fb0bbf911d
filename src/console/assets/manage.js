// What ends an agent, for a while or for good.

import { $, busy } from "./dom.js";
import { agentId, to } from "./api.js";
import { attempt } from "./shell.js";
import { agent, page, run, watch } from "./agent.js";
import { command, may, sure } from "./status.js";

page(async () => {
  for (const name of ["restart", "stop", "start"]) $(`#${name}`).addEventListener("click", (event) => run(event.currentTarget, name));
  watch(({ status }) => {
    for (const name of ["restart", "stop", "start"]) $(`#${name}`).disabled = !may[name](status);
  });
  $("#delete").addEventListener("click", (event) => {
    const button = event.currentTarget;
    busy(button, async () => {
      if (!(await sure("delete", agent.record.name, agent.record.slug))) return;
      button.textContent = "Deleting …";
      const done = await attempt(async () => (await command(agentId, "delete")) ?? true);
      if (done) location.assign(to("/"));
      else button.textContent = "Delete this agent";
    });
  });
});
