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

const REASONS = {
  ended: "Your session has ended. Sign in to go on.",
  out: "You are signed out.",
  // Why somebody who went to the identity provider has come back as nobody.
  denied: "The sign-in was cancelled or refused at the identity provider.",
  again: "That sign-in took too long, was used already, or was begun in another browser. Please try again.",
  address: "The identity provider gave no verified e-mail address that may sign in here. Ask an administrator.",
  provider: "The identity provider cannot be used at the moment. Try again in a minute; the operator finds the cause in the log.",
  suspended: "Your account is suspended. Ask an administrator.",
  identity: "The account with your e-mail address belongs to another person at the identity provider. Ask an administrator.",
  slow: "Too many attempts have failed. Wait a little and try again.",
  failed: "Signing in did not work. Try again in a minute.",
};
say($("#reason"), REASONS[query.get("reason")] ?? "");

// A one-time link has its secret behind the #, which is sent to nobody by itself and goes into no log.
const token = new URLSearchParams(location.hash.slice(1)).get("link");
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  $("#link").hidden = false;
  $("#sign-in").hidden = true;
  $("#link button").focus();
}

async function enter(form, path, json, place, then = next()) {
  await showProblem(form, null, place);
  try {
    await call(path, { method: "POST", json });
    location.assign(then.startsWith(base) ? then : to(then));
  } catch (error) {
    if (error.status === 401) say(place, "The e-mail address or the password is wrong.");
    else if (error.errors.some((it) => it.pointer === "/token")) say(place, "This link is not valid, or was used already. Ask for a new one.");
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
  busy($("#link button"), () => enter(event.target, "/api/auth/link", { token }, $("#link-problem"), "/account"));
});

$("#register").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  if (!check(form)) return;
  const { email, password, invitation } = form.elements;
  const json = { email: email.value.trim(), password: password.value, ...(invitation.value.trim() ? { invitation: invitation.value.trim() } : {}) };
  busy($("button", form), () => enter(form, "/api/auth/register", json, $("#register-problem")));
});

// Who may register is the operator's choice.
call("/api/auth").then(
  ({ registration, provider }) => {
    if (provider) {
      const link = $("#provider a");
      link.textContent = `Sign in with ${provider}`;
      link.href = `${base}/api/auth/oidc/start?next=${encodeURIComponent(query.get("next") ?? "/")}`;
      $("#provider").hidden = false;
    }
    $("#registration").hidden = registration === "closed";
    $("#invitation").closest(".field").hidden = registration === "open";
    $("#invitation").required = registration === "invite";
  },
  () => {},
);

// Whoever is signed in already has no business here.
fetch(`${base}/api/me`, { headers: { Accept: "application/json" } }).then((response) => response.ok && !token && location.replace(next())).catch(() => {});
