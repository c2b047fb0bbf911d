// An agent from an exported file.

import { $, busy } from "./dom.js";
import { call, once, query, to } from "./api.js";
import { start } from "./shell.js";
import { check, showProblem, unmark } from "./fields.js";

start(() => {
  const form = $("#import");
  // One name for the whole form: sent twice, it is still one agent.
  let name = once();
  form.addEventListener("input", (event) => {
    name = once();
    unmark(event.target);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!check(form)) return;
    busy($("button.primary", form), async () => {
      await showProblem(form, null);
      const key = form.elements.apiKey.value.trim();
      const headers = { ...name, "Content-Type": "application/x-tar", ...(key ? { "X-Model-Api-Key": key } : {}) };
      const path = query("/api/agents/import", { name: form.elements.name.value.trim() });
      try {
        const agent = await call(path, { method: "POST", body: form.elements.file.files[0], headers });
        location.assign(to(`/agents/${agent.id}`));
      } catch (error) {
        if (error.status !== 401) await showProblem(form, error);
      }
    });
  });
});
