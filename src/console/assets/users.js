// Users, for administrators.

import { $, ask, busy, fill, h, toast, when } from "./dom.js";
import { call, query, to } from "./api.js";
import { attempt, failed, start } from "./shell.js";
import { check, showProblem } from "./fields.js";
import { listKeys } from "./keys.js";
import { empty, Pages, table } from "./table.js";

const PLANS = ["free", "pro", "enterprise"];
let pages;

start(async (who) => {
  const filters = $("#filters");
  filters.elements.email.value = new URLSearchParams(location.search).get("email") ?? "";
  pages = new Pages($("#pager"), () => load(who));
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    pages.reset();
    load(who);
  });
  $("#new-user").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    if (check(form)) busy($("button", form), () => add(form, who));
  });
  await load(who);
});

async function load(who) {
  const email = $("#filters").elements.email.value.trim();
  history.replaceState(null, "", query(location.pathname, { email }));
  try {
    const page = await call(query("/api/admin/users", { email, limit: 50, cursor: pages.cursor }));
    pages.show(page);
    if (!page.data.length) return fill($("#users"), empty(email ? "Nobody has this address." : "There are no users."));
    const rows = page.data.map((user) => [
      [h("strong", {}, user.email), user.id === who.id ? h("span", { class: "hint below" }, "You") : h("span", { class: "hint below" }, user.id)],
      [user.plan, user.customLimits ? h("span", { class: "hint below" }, "own limits") : null],
      user.limits.maxAgents === null ? String(user.used) : [`${user.used} of ${user.limits.maxAgents}`, user.used > user.limits.maxAgents ? h("span", { class: "warn below" }, "more than the plan allows") : null],
      h("span", { class: `badge ${user.status}` }, h("span", { class: "dot", "aria-hidden": "true" }), { active: "Active", suspended: "Suspended", deleting: "Being deleted" }[user.status] ?? user.status),
      when(user.createdAt),
      h("button", { type: "button", "aria-label": `Manage ${user.email}`, onclick: () => manage(user, who) }, "Manage"),
    ]);
    fill($("#users"), table("Users", ["User", "Plan", "Agents", "Status", "Since", ""], rows));
  } catch (error) {
    if (error.status !== 401) await failed($("#users"), error, () => load(who));
  }
}

async function add(form, who) {
  await showProblem(form, null);
  const email = form.elements.email.value.trim();
  try {
    const user = await call("/api/admin/users", { method: "POST", json: { email, plan: form.elements.plan.value } });
    form.reset();
    toast(`${user.email} was added.`);
    await load(who);
    manage(user, who);
  } catch (error) {
    if (error.status === 401) return;
    // The form has another field of that name above it.
    if (error.errors.length) error.errors = error.errors.map((it) => (it.pointer === "/email" ? { ...it, pointer: "/new-email" } : it));
    await showProblem(form, error);
  }
}

/** Everything about one user, in a dialog. */
function manage(user, who) {
  const self = user.id === who.id;
  const path = `/api/admin/users/${user.id}`;
  const plan = h("select", { id: "user-plan" }, PLANS.map((it) => h("option", { value: it, selected: it === user.plan }, it)));
  const limit = (id, value) => h("input", { id, type: "number", min: "0", step: "any", value: user.customLimits && value !== null ? value : null });
  const agents = limit("user-agents", user.limits.maxAgents);
  const cpu = limit("user-cpu", user.limits.cpu);
  const memory = limit("user-memory", user.limits.memoryMb);
  const limits = h("div", { class: "row", hidden: user.plan !== "enterprise" }, field("user-agents", "Agents", agents), field("user-cpu", "Cores each", cpu), field("user-memory", "MiB each", memory));
  plan.addEventListener("change", () => (limits.hidden = plan.value !== "enterprise"));
  const keys = h("div", { "aria-busy": "true" });
  const problem = h("p", { class: "error", role: "alert", hidden: true });
  const act = (action, done) => (event) =>
    busy(event.currentTarget, async () => {
      if ((await attempt(async () => (await action()) ?? true, done)) !== undefined) dialog.close();
    });
  const save = () => {
    const set = [agents, cpu, memory].some((it) => it.value !== "");
    const own = { ...(agents.value ? { maxAgents: Number(agents.value) } : {}), ...(cpu.value ? { cpu: Number(cpu.value) } : {}), ...(memory.value ? { memoryMb: Number(memory.value) } : {}) };
    const json = { plan: plan.value, ...(plan.value === "enterprise" ? { limits: set ? own : null } : {}) };
    return call(path, { method: "PATCH", json });
  };
  const status = (value) => () => call(path, { method: "PATCH", json: { status: value } });
  const remove = async () => {
    const sure = await ask({ title: `Delete ${user.email}?`, body: `The user goes with ${user.used} agents, their memory and all keys. This cannot be undone.`, action: "Delete", type: user.email });
    if (!sure) throw new Cancelled();
    return call(`${path}?agents=delete`, { method: "DELETE" });
  };
  const dialog = h(
    "dialog",
    { class: "large", "aria-labelledby": "user-title" },
    h("h2", { id: "user-title" }, user.email),
    h("p", {}, h("a", { href: to(`/admin/agents?user=${user.id}`) }, `${user.used} agents`)),
    h("div", { class: "row" }, field("user-plan", "Plan", plan)),
    limits,
    problem,
    h("div", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: act(save, "Saved.") }, "Save")),
    h("h3", {}, "API keys"),
    keys,
    h("h3", {}, "Access"),
    h("div", { class: "buttons" }, [
      user.status === "suspended"
        ? h("button", { type: "button", onclick: act(status("active"), "The user is active again; agents stay stopped until they are started.") }, "Resume")
        : h("button", { type: "button", disabled: self, onclick: act(status("suspended"), "Suspended: keys and sessions are refused, agents stop, data is kept.") }, "Suspend"),
      h("button", { type: "button", class: "danger", disabled: self, onclick: (event) => busy(event.currentTarget, async () => { try { await remove(); dialog.close(); toast("The user is being deleted."); } catch (error) { if (!(error instanceof Cancelled)) await attempt(() => Promise.reject(error)); } }) }, "Delete the user"),
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ]),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    load(who);
  });
  document.body.append(dialog);
  dialog.showModal();
  listKeys(keys, `${path}/keys`);
}

class Cancelled extends Error {}

const field = (id, label, input) => h("div", { class: "field" }, h("label", { for: id }, label), input);
