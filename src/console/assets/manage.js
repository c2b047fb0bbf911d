// What is done to an agent as a whole: to start and to stop it, to upgrade, copy and export it, to delete it.

import { $, ask, busy, copy, h, toast } from "./dom.js";
import { agentId, call, once, request, to } from "./api.js";
import { attempt } from "./shell.js";
import { agent, page, run, took, watch } from "./agent.js";
import { check, showProblem } from "./fields.js";
import { command, may, sure } from "./status.js";

page(async () => {
  for (const name of ["restart", "stop", "start"]) $(`#${name}`).addEventListener("click", (event) => run(event.currentTarget, name));
  watch(({ status }) => {
    for (const name of ["restart", "stop", "start"]) $(`#${name}`).disabled = !may[name](status);
  });
  $("#image").placeholder = agent.record.image ?? "";
  $("#copy-name").value = `${agent.record.name} (copy)`.slice(0, 50);
  submits($("#upgrade-form"), $("#upgrade-problem"), upgrade);
  submits($("#copy-form"), $("#copy-problem"), duplicate);
  $("#dashboard").addEventListener("click", (event) => busy(event.currentTarget, () => attempt(dashboard)));
  $("#export").addEventListener("click", (event) => busy(event.currentTarget, () => attempt(download)));
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

/** Makes a form send what it holds; what is wrong with it is shown there. */
function submits(form, place, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!check(form)) return;
    busy($("button", form), async () => {
      await showProblem(form, null, place);
      try {
        await action(form.elements);
      } catch (error) {
        if (error.status !== 401) await showProblem(form, error, place);
      }
    });
  });
}

async function upgrade({ image }) {
  const name = image.value.trim();
  const body = "It is away for some seconds, and its messages are held. If the new version does not become usable, the old one comes back.";
  if (!(await ask({ title: `Upgrade ${agent.record.name}?`, body, action: "Upgrade", danger: false }))) return;
  const response = await request(`/api/agents/${agentId}/upgrade`, { method: "POST", json: name ? { image: name } : {}, headers: once() });
  took(await response.json());
  toast(response.status === 200 ? "It runs that already." : "The upgrade is under way.");
}

async function duplicate({ name }) {
  const copy = await call(`/api/agents/${agentId}/clone`, { method: "POST", json: { name: name.value.trim() }, headers: once() });
  location.assign(to(`/agents/${copy.id}`));
}

/** The code stands beside the link: the page asks for it, and nobody but its reader may have it. */
async function dashboard() {
  const { host, code } = await call(`/api/agents/${agentId}/dashboard`, { method: "POST" });
  const address = `${location.protocol}//${host}${location.port ? `:${location.port}` : ""}/`;
  const body = [
    h("p", {}, "Open the page, and enter this code where it asks for a pairing code:"),
    h("pre", { tabindex: "0" }, h("code", {}, code)),
    h("p", {}, h("button", { type: "button", onclick: () => copy(code) }, "Copy the code"), " ", h("a", { class: "button", href: address, target: "_blank", rel: "noreferrer noopener" }, `Open ${host}`)),
  ];
  await ask({ title: `The page of ${agent.record.name}`, body, action: "Done", danger: false });
}

async function download() {
  const response = await request(`/api/agents/${agentId}/export`, { headers: { Accept: "application/x-tar" } });
  const address = URL.createObjectURL(await response.blob());
  h("a", { href: address, download: `${agent.record.slug}.tar` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
