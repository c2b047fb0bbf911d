// Everything about one user, in a dialog, for administrators.

import { ask, busy, copy, fill, h, toast, when } from "./dom.js";
import { base, call, query, to } from "./api.js";
import { attempt, failed } from "./shell.js";
import { listKeys } from "./keys.js";
import { empty, table } from "./table.js";

const PLANS = ["free", "pro", "enterprise"];

const field = (id, label, input) => h("div", { class: "field" }, h("label", { for: id }, label), input);

/** Shows a secret once. */
export const once = (title, about, text) =>
  ask({
    title,
    body: [h("p", {}, about), h("pre", { tabindex: "0" }, h("code", {}, text)), h("p", {}, h("button", { type: "button", onclick: () => copy(text) }, "Copy"))],
    action: "I have it",
    danger: false,
  });

/** Opens the dialog; `closed` runs when it is left. */
export function manage(user, self, closed) {
  const path = `/api/admin/users/${user.id}`;
  const patch = (json) => call(path, { method: "PATCH", json });
  const button = (name, action, options = {}) => h("button", { type: "button", ...options, onclick: (event) => busy(event.currentTarget, () => attempt(action)) }, name);
  const leaving = (action, said) => async () => {
    await action();
    toast(said);
    dialog.close();
  };

  const plan = h("select", { id: "user-plan" }, PLANS.map((it) => h("option", { value: it, selected: it === user.plan }, it)));
  const own = (id, value, least) => h("input", { id, type: "number", min: least, step: "any", value: user.customLimits && value !== null ? value : null, placeholder: "The plan's" });
  const agents = own("user-agents", user.limits.maxAgents, 1);
  const cpu = own("user-cpu", user.limits.cpu, 0.05);
  const memory = own("user-memory", user.limits.memoryMb, 16);
  const limits = h("div", { class: "row" }, field("user-agents", "Agents", agents), field("user-cpu", "Cores of each", cpu), field("user-memory", "MiB of each", memory));
  const follow = () => (limits.hidden = plan.value !== "enterprise");
  plan.addEventListener("change", follow);
  follow();
  const save = () => {
    const set = Object.entries({ maxAgents: agents.value, cpu: cpu.value, memoryMb: memory.value }).filter(([, value]) => value !== "");
    const limitsNow = set.length ? Object.fromEntries(set.map(([name, value]) => [name, Number(value)])) : null;
    return patch({ plan: plan.value, ...(plan.value === "enterprise" ? { limits: limitsNow } : {}) });
  };

  const link = async () => {
    const made = await call(`${path}/sign-in-link`, { method: "POST" });
    await once("A one-time link", `It signs ${user.email} in once, within a day. Send it to nobody else.`, new URL(base + made.path, location.href).href);
  };
  const remove = async () => {
    const body = `The user goes with ${user.used === 1 ? "one agent" : `${user.used} agents`}, their memory, and all keys. This cannot be undone.`;
    if (!(await ask({ title: `Delete ${user.email}?`, body, action: "Delete", type: user.email }))) return;
    await call(`${path}?agents=delete`, { method: "DELETE" });
    toast(`${user.email} is being deleted.`);
    dialog.close();
  };

  const keys = h("div", { "aria-busy": "true" });
  const sessions = h("div", { "aria-busy": "true" });
  const suspended = user.status === "suspended";
  const dialog = h(
    "dialog",
    { class: "large", "aria-labelledby": "user-title" },
    h("h2", { id: "user-title" }, user.email),
    h("p", {}, h("a", { href: query(to("/admin/agents"), { user: user.id }) }, user.used === 1 ? "1 agent" : `${user.used} agents`), user.overLimit ? h("span", { class: "warn" }, ", more than the plan allows; they keep running") : null),
    h("div", { class: "row" }, field("user-plan", "Plan", plan)),
    limits,
    h("div", { class: "buttons" }, button("Save the plan", leaving(save, "Saved."), { class: "primary" })),
    h("h3", {}, "API keys"),
    keys,
    h("h3", {}, "Where they are signed in"),
    sessions,
    h("h3", {}, "Access"),
    h("div", { class: "buttons" }, [
      button("Make a one-time link", link),
      user.administrator
        ? button("Take administration away", leaving(() => patch({ administrator: false }), "No administrator any more."), { disabled: self })
        : button("Make an administrator", leaving(() => patch({ administrator: true }), "An administrator now.")),
      suspended
        ? button("Resume", leaving(() => patch({ status: "active" }), "Active again. Agents stay stopped until they are started."))
        : button("Suspend", leaving(() => patch({ status: "suspended" }), "Suspended: keys and sessions are refused, agents stop, data is kept."), { disabled: self }),
      button("Delete the user", remove, { class: "danger", disabled: self }),
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ]),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
  });
  document.body.append(dialog);
  dialog.showModal();
  listKeys(keys, `${path}/keys`);
  listSessions(sessions, `${path}/sessions`);
}

async function listSessions(place, path) {
  try {
    const { data } = await call(`${path}?limit=200`);
    if (!data.length) return fill(place, empty("Nowhere."));
    const end = (it) => async () => {
      await call(`${path}/${it.id}`, { method: "DELETE" });
      await listSessions(place, path);
    };
    const rows = data.map((it) => [it.client ?? "Not known", it.address ?? "–", when(it.lastUsedAt), h("button", { type: "button", onclick: (event) => busy(event.currentTarget, () => attempt(end(it))) }, "Sign out")]);
    fill(place, table("Sessions", ["Browser", "Address", "Last used", ""], rows));
  } catch (error) {
    if (error.status !== 401) await failed(place, error);
  }
}
