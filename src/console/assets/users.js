// Users and invitations, for administrators.

import { $, busy, fill, h, toast, when } from "./dom.js";
import { call, query } from "./api.js";
import { attempt, failed, start } from "./shell.js";
import { check, showProblem } from "./fields.js";
import { empty, Pages, table } from "./table.js";
import { manage, once } from "./user.js";

const STATUS = { active: "Active", suspended: "Suspended", deleting: "Being deleted" };
let pages;
let who;

start(async (caller) => {
  who = caller;
  const filters = $("#filters");
  filters.elements.email.value = new URLSearchParams(location.search).get("email") ?? "";
  pages = new Pages($("#pager"), load);
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    pages.reset();
    load();
  });
  submits($("#new-user"), $("#problem"), add);
  submits($("#invite"), $("#invite-problem"), invite);
  await Promise.all([load(), invitations()]);
});

/** Makes a form send what it holds; what is wrong with it is shown there. */
function submits(form, place, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!check(form)) return;
    busy($("button", form), async () => {
      await showProblem(form, null, place);
      try {
        await action(form);
      } catch (error) {
        if (error.status !== 401) await showProblem(form, error, place);
      }
    });
  });
}

async function load() {
  const email = $("#filters").elements.email.value.trim();
  history.replaceState(null, "", query(location.pathname, { email }));
  try {
    const page = await call(query("/api/admin/users", { email, limit: 50, cursor: pages.cursor }));
    pages.show(page);
    if (!page.data.length) return fill($("#users"), empty(email ? "Nobody has this address." : "There are no users."));
    fill($("#users"), table("Users", ["User", "Plan", "Agents", "Status", "Since", ""], page.data.map(row)));
  } catch (error) {
    if (error.status !== 401) await failed($("#users"), error, load);
  }
}

function row(user) {
  const { maxAgents } = user.limits;
  const about = [user.id === who.id ? "you" : null, user.administrator ? "administrator" : null].filter(Boolean).join(", ");
  return [
    [h("strong", {}, user.email), about ? h("span", { class: "hint below" }, about) : null],
    [user.plan, user.customLimits ? h("span", { class: "hint below" }, "own limits") : null],
    [maxAgents === null ? String(user.used) : `${user.used} of ${maxAgents}`, user.overLimit ? h("span", { class: "warn below" }, "more than the plan allows") : null],
    h("span", { class: `badge ${user.status}` }, h("span", { class: "dot", "aria-hidden": "true" }), STATUS[user.status] ?? user.status),
    when(user.createdAt),
    h("button", { type: "button", "aria-label": `Manage ${user.email}`, onclick: () => manage(user, user.id === who.id, load) }, "Manage"),
  ];
}

async function add(form) {
  const json = { email: form.elements.email.value.trim(), plan: form.elements.plan.value };
  const user = await call("/api/admin/users", { method: "POST", json });
  form.reset();
  toast(`${user.email} was added. Make a one-time link for them to sign in with.`);
  await load();
  manage(user, false, load);
}

// --- invitations -----------------------------------------------------------------------------------------------------

async function invitations() {
  const place = $("#invitations");
  try {
    const { data } = await call("/api/admin/invitations?limit=200");
    if (!data.length) return fill(place, empty("No invitation is open."));
    const withdraw = (it) => async () => {
      await call(`/api/admin/invitations/${it.id}`, { method: "DELETE" });
      await invitations();
    };
    const rows = data.map((it) => [it.email ?? "Anybody", it.plan, when(it.createdAt), when(it.expiresAt), h("button", { type: "button", onclick: (event) => busy(event.currentTarget, () => attempt(withdraw(it))) }, "Withdraw")]);
    fill(place, table("Invitations", ["For", "Plan", "Made", "Ends", ""], rows));
  } catch (error) {
    if (error.status !== 401) await failed(place, error, invitations);
  }
}

async function invite(form) {
  const email = form.elements.email.value.trim();
  const made = await call("/api/admin/invitations", { method: "POST", json: { plan: form.elements.plan.value, ...(email ? { email } : {}) } });
  form.reset();
  await invitations();
  await once("An invitation", "Send it to the person: they enter it where they create their account. It works once, within a week.", made.invitation);
}
