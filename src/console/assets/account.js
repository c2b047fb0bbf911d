// One's own account: plan, keys, sessions, password.

import { $, busy, facts, fill, h, toast, when } from "./dom.js";
import { call } from "./api.js";
import { attempt, failed, isAdministrator, start } from "./shell.js";
import { check, showProblem } from "./fields.js";
import { listKeys, wireNewKey } from "./keys.js";
import { empty, table } from "./table.js";

start(async (who) => {
  showPlan(who);
  if (!isAdministrator(who)) $('[name="scopes"][value="admin"]').closest("label").hidden = true;
  wireNewKey($("#new-key"), () => "/api/keys", () => listKeys($("#keys"), "/api/keys"));
  $("#password-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    if (check(form)) busy($("button", form), () => changePassword(form));
  });
  await Promise.all([listKeys($("#keys"), "/api/keys"), sessions()]);
});

function showPlan(who) {
  const { maxAgents, cpu, memoryMb } = who.limits;
  const list = h("dl");
  facts(list, [
    ["E-mail address", who.email],
    ["Plan", who.plan + (who.customLimits ? ", with limits of your own" : "")],
    ["Agents", maxAgents === null ? `${who.used}, no limit` : `${who.used} of ${maxAgents}`],
    ["Each agent", `${cpu} ${cpu === 1 ? "core" : "cores"}, ${memoryMb} MiB of memory`],
    ["Member since", when(who.createdAt)],
  ]);
  const over = maxAgents !== null && who.used > maxAgents;
  const meter = maxAgents === null ? null : h("meter", { min: 0, max: maxAgents, value: who.used, "aria-label": "Agents in use" });
  fill($("#plan"), list, meter, over ? h("p", { class: "warn" }, "You have more agents than your plan allows. They keep running; no more can be added.") : null);
}

async function sessions() {
  const place = $("#sessions");
  try {
    const { data } = await call("/api/me/sessions");
    if (!data.length) return fill(place, empty("Nowhere."));
    const rows = data.map((it) => [
      [h("span", {}, it.userAgent ?? it.client ?? "A browser"), it.current ? h("strong", { class: "below" }, "This one") : null],
      it.address ?? it.ip ?? "–",
      when(it.createdAt),
      when(it.lastUsedAt ?? it.lastSeenAt),
      when(it.expiresAt),
      it.current ? "" : h("button", { type: "button", onclick: (event) => busy(event.currentTarget, () => end(it)) }, "Sign out"),
    ]);
    fill(place, table("Sessions", ["Browser", "Address", "Since", "Last used", "Ends", ""], rows));
  } catch (error) {
    if (error.status === 404) fill(place, empty("Sessions are not known here."));
    else if (error.status !== 401) await failed(place, error, sessions);
  }
}

async function end(session) {
  await attempt(async () => (await call(`/api/me/sessions/${session.id}`, { method: "DELETE" })) ?? true, "That session is ended.");
  await sessions();
}

async function changePassword(form) {
  const place = $("#password-problem");
  await showProblem(form, null, place);
  const { current, new: next } = form.elements;
  try {
    await call("/api/me/password", { method: "POST", json: { ...(current.value ? { currentPassword: current.value } : {}), newPassword: next.value } });
    form.reset();
    toast("The password is changed. Your other sessions are ended.");
    await sessions();
  } catch (error) {
    if (error.status !== 401) await showProblem(form, error, place);
  }
}
