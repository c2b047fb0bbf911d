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
    ["Password", who.hasPassword ? "set" : "none yet: set one below, your link works only once"],
    ["Member since", when(who.createdAt)],
  ]);
  const over = who.overLimit;
  const meter = maxAgents === null ? null : h("meter", { min: 0, max: maxAgents, value: who.used, "aria-label": "Agents in use" });
  fill($("#plan"), list, meter, over ? h("p", { class: "warn" }, "You have more agents than your plan allows. They keep running; no more can be added.") : null);
}

/** A browser's name for itself in a few words. */
function browser(client) {
  const found = client?.match(/(Edg|OPR|Firefox|Chrome|Safari)\w*\/(\d+)/);
  const system = client?.match(/Android|iPhone|iPad|Windows|Mac OS X|Linux/);
  const name = found ? { Edg: "Edge", OPR: "Opera" }[found[1]] ?? found[1] : client?.slice(0, 60);
  return name ? h("span", { title: client }, [name, system ? ` on ${system[0]}` : ""].join("")) : "Not known";
}

async function sessions() {
  const place = $("#sessions");
  try {
    const { data } = await call("/api/me/sessions");
    if (!data.length) return fill(place, empty("Nowhere."));
    const rows = data.map((it) => [
      [h("span", {}, browser(it.client)), it.current ? h("strong", { class: "below" }, "This one") : null],
      it.address ?? "–",
      when(it.createdAt),
      when(it.lastUsedAt),
      when(it.expiresAt),
      it.current ? "" : h("button", { type: "button", onclick: (event) => busy(event.currentTarget, () => end(it)) }, "Sign out"),
    ]);
    fill(place, table("Sessions", ["Browser", "Address", "Since", "Last used", "Ends", ""], rows));
  } catch (error) {
    if (error.status !== 401) await failed(place, error, sessions);
  }
}

async function end(session) {
  await attempt(async () => (await call(`/api/me/sessions/${session.id}`, { method: "DELETE" })) ?? true, "That session is ended.");
  await sessions();
}

async function changePassword(form) {
  const place = $("#password-problem");
  await showProblem(form, null, place);
  const { current, password } = form.elements;
  try {
    await call("/api/me/password", { method: "POST", json: { ...(current.value ? { current: current.value } : {}), password: password.value } });
    form.reset();
    toast("The password is changed. Your other sessions are ended.");
    await sessions();
  } catch (error) {
    if (error.status !== 401) await showProblem(form, error, place);
  }
}
