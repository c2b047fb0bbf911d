// What every page of the console does: who is signed in, signing out, and whether the service can be reached.

import { $, ask, h, say, toast } from "./dom.js";
import { base, call, request, sentence, to } from "./api.js";

let signedOut = false;
let loaded = false;
let known;

/** The caller, asked for once. */
export const me = () => (known ??= call("/api/me"));

export const isAdministrator = (who) => who.administrator === true;

function signInAddress(reason) {
  const here = location.pathname.slice(base.length) + location.search;
  const query = new URLSearchParams({ ...(here === "/" ? {} : { next: here }), ...(reason ? { reason } : {}) }).toString();
  return to(`/sign-in${query ? `?${query}` : ""}`);
}

// A session that ends under an open page is told; what was typed there stays.
addEventListener("signed-out", async () => {
  if (signedOut) return;
  signedOut = true;
  if (!loaded) return location.replace(signInAddress(""));
  const again = await ask({
    title: "You are signed out",
    body: "Your session has ended, or was ended elsewhere. Sign in again to go on; you come back to this page.",
    action: "Sign in",
    danger: false,
  });
  if (again) location.assign(signInAddress("ended"));
  else signedOut = false;
});

let away = false;
let asking = null;
addEventListener("service-away", () => {
  if (away) return;
  away = true;
  const bar = $("#connection");
  bar.className = "away";
  say(bar, "The connection to the service is lost. Trying again …");
  asking = setInterval(() => request("/livez").catch(() => {}), 2000);
});
addEventListener("service-there", () => {
  if (!away) return;
  away = false;
  clearInterval(asking);
  const bar = $("#connection");
  bar.className = "back";
  say(bar, "The connection is back.");
  setTimeout(() => !away && say(bar, ""), 4000);
  dispatchEvent(new CustomEvent("service-back"));
});

$("#sign-out")?.addEventListener("click", async () => {
  try {
    await call("/api/auth/logout", { method: "POST" });
  } catch (error) {
    if (error.status !== 401) return toast(await sentence(error), "bad");
  }
  sessionStorage.clear();
  location.assign(to("/sign-in?reason=out"));
});

/** Fills the page once it is known who looks at it; a failure is shown in its place. */
export async function start(run) {
  try {
    const who = await me();
    $("#who").textContent = who.email;
    $("#administration").hidden = !isAdministrator(who);
    loaded = true;
    await run(who);
  } catch (error) {
    if (error.status === 401) return;
    if (!loaded && error.code === "offline") addEventListener("service-back", () => location.reload(), { once: true });
    await failed($("main"), error);
  }
}

/** Shows what went wrong in an element. */
export async function failed(into, error, retry = null) {
  const text = await sentence(error);
  if (into.tagName === "MAIN") {
    for (const part of into.querySelectorAll("[aria-busy]")) part.removeAttribute("aria-busy");
    into.prepend(problem(text, retry));
    return;
  }
  into.removeAttribute("aria-busy");
  into.replaceChildren(problem(text, retry));
}

const problem = (text, retry) =>
  h("div", { class: "notice bad", role: "alert" }, h("p", {}, text), retry ? h("button", { type: "button", onclick: retry }, "Try again") : null);

/** Runs an action and tells in a passing notice what went wrong. */
export async function attempt(action, done = null) {
  try {
    const answer = await action();
    if (done) toast(done);
    return answer;
  } catch (error) {
    if (error.status !== 401) toast(await sentence(error), "bad");
    return undefined;
  }
}
