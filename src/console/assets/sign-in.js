// Signing in. Where one came from is where one goes afterwards.

import { $, busy, say } from "./dom.js";
import { base, call, to } from "./api.js";
import { check, showProblem } from "./fields.js";

const query = new URLSearchParams(location.search);

/** Only a path of the console: an address from elsewhere would be a trap. */
function next() {
  const path = query.get("next") ?? "/";
  return /^\/(?![/\\])[\w\-./?=&%,+]*$/.test(path) ? to(path) : to("/");
}

const REASONS = { ended: "Your session has ended. Sign in to go on.", out: "You are signed out." };
say($("#reason"), REASONS[query.get("reason")] ?? "");

// A one-time link has its secret behind the #, which is sent to nobody by itself and goes into no log.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  $("#link").hidden = false;
  $("#sign-in").hidden = true;
  $("#link button").focus();
}

async function enter(form, path, json, place) {
  await showProblem(form, null, place);
  try {
    await call(path, { method: "POST", json });
    location.assign(next());
  } catch (error) {
    if (error.status === 401 && path.endsWith("/login") && json.password !== undefined) say(place, "The e-mail address or the password is wrong.");
    else if (error.status === 404) say(place, "This service has no sign-in by password. Use an API key with the command line or the REST API.");
    else await showProblem(form, error, place);
  }
}

$("#sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  if (!check(form)) return;
  const { email, password } = form.elements;
  busy($("button", form), () => enter(form, "/api/auth/login", { email: email.value.trim(), password: password.value }, $("#problem")));
});

$("#link").addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("#link button"), () => enter(event.target, "/api/auth/login", { token }, $("#link-problem")));
});

$("#register").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  if (!check(form)) return;
  const { email, password, invitation } = form.elements;
  const json = { email: email.value.trim(), password: password.value, ...(invitation.value.trim() ? { invitation: invitation.value.trim() } : {}) };
  busy($("button", form), () => enter(form, "/api/auth/register", json, $("#register-problem")));
});

// Whoever is signed in already has no business here.
fetch(`${base}/api/me`, { headers: { Accept: "application/json" } }).then((response) => response.ok && !token && location.replace(next())).catch(() => {});
