// Sign-in by an identity provider, in a real browser and with a certified provider.

import { strict as assert } from "node:assert";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { CLIENT, startIdentityProvider } from "./identity.mjs";
import { says, violations, World } from "./world.mjs";

let world;
let identity;
before(async () => {
  identity = await startIdentityProvider();
  const secret = join(tmpdir(), `zeroone-oidc-${process.pid}`);
  await writeFile(secret, `${CLIENT.secret}\n`, { mode: 0o600 });
  world = await World.start({
    ZEROONE_OIDC__ISSUER: identity.issuer,
    ZEROONE_OIDC__CLIENT_ID: CLIENT.id,
    ZEROONE_OIDC__CLIENT_SECRET_FILE: secret,
    ZEROONE_OIDC__EMAIL_DOMAINS: "example.com",
    ZEROONE_OIDC__NAME: "Example",
  });
  world.elsewhere.push(identity.issuer);
  await identity.serve(world.url);
});
after(async () => {
  await world?.stop();
  identity?.close();
});

/** Goes to the provider from this page and says there who one is. */
async function comeAs(page, sub) {
  await page.getByRole("link", { name: "Sign in with Example" }).click();
  await page.waitForURL(`${identity.issuer}/interaction/*`);
  await page.getByPlaceholder("Enter any login").fill(sub);
  await page.getByPlaceholder("and password").fill("any");
  await page.getByRole("button", { name: "Sign-in" }).click();
  await page.getByRole("button", { name: "Continue" }).click();
}

/** A browser of its own. The provider's pages want fonts from elsewhere, and do not get them. */
async function page() {
  const context = await world.context();
  await context.route("https://**", (route) => route.abort());
  return context.newPage();
}

/** The names of our cookies. Browsers do not tell ports apart, so the provider's are there too. */
const ours = async (page) => (await page.context().cookies(world.url)).map((it) => it.name).filter((it) => it.startsWith("zeroone"));

test("the first sign-in makes the account, and the next one finds it and the page that it was for", async () => {
  identity.people.set("ada", { email: "Ada@Example.com", email_verified: true });
  const first = await page();
  await first.goto("/sign-in?next=/account");
  await first.getByRole("link", { name: "Sign in with Example" }).waitFor();
  assert.deepEqual(await violations(first), []);
  await comeAs(first, "ada");
  await first.waitForURL("**/account");
  await says(first, "ada@example.com");
  assert.deepEqual(await ours(first), ["zeroone_session"], "nothing of the way there is left");

  // Another address at the provider is the same person.
  identity.people.set("ada", { email: "countess@example.com", email_verified: true });
  const again = await page();
  await again.goto("/sign-in");
  await comeAs(again, "ada");
  await says(again, "You have no agents yet.");
  const { data } = await world.api("/api/admin/users?limit=200");
  assert.deepEqual(data.map((it) => it.email).filter((it) => it.endsWith("example.com")), ["ada@example.com"]);
  const audit = await world.api("/api/admin/audit?limit=200");
  const entries = audit.data.filter((it) => it.action.includes("oidc/callback"));
  assert.deepEqual(entries.map((it) => it.outcome), ["done", "done"]);
});

test("an account that was there is its owner's, and nobody else's with that address", async () => {
  await world.api("/api/admin/users", { method: "POST", json: { email: "bob@example.com", plan: "pro" } });
  identity.people.set("bob", { email: "bob@example.com", email_verified: true });
  identity.people.set("mallory", { email: "bob@example.com", email_verified: true });
  const bob = await page();
  await bob.goto("/sign-in?next=/account");
  await comeAs(bob, "bob");
  await bob.waitForURL("**/account");
  await says(bob, "Pro");
  const mallory = await page();
  await mallory.goto("/sign-in");
  await comeAs(mallory, "mallory");
  await says(mallory, "belongs to another person at the identity provider");
});

test("who has no verified address, another domain or a suspended account stays out", async () => {
  identity.people.set("eve", { email: "eve@example.com", email_verified: false });
  identity.people.set("dan", { email: "dan@example.com.evil.test", email_verified: true });
  for (const sub of ["eve", "dan"]) {
    const stranger = await page();
    await stranger.goto("/sign-in");
    await comeAs(stranger, sub);
    await says(stranger, "no verified e-mail address that may sign in here");
    assert.deepEqual(await ours(stranger), []);
  }
  identity.people.set("sue", { email: "sue@example.com", email_verified: true });
  const { id } = await world.api("/api/admin/users", { method: "POST", json: { email: "sue@example.com", plan: "free" } });
  await world.api(`/api/admin/users/${id}`, { method: "PATCH", json: { status: "suspended" } });
  const sue = await page();
  await sue.goto("/sign-in");
  await comeAs(sue, "sue");
  await says(sue, "Your account is suspended.");
  const refused = await world.api("/api/admin/audit?limit=200");
  assert.equal(refused.data.filter((it) => it.action.includes("oidc/callback") && it.outcome === "refused").length >= 3, true);
});

test("an answer that this browser did not ask for signs nobody in", async () => {
  const victim = await page();
  // An attacker's own way back, given to somebody else: their state is in no cookie of this browser.
  await victim.goto("/api/auth/oidc/callback?code=stolen&state=stolen");
  await says(victim, "begun in another browser");
  // A code that the provider has never given.
  await victim.goto("/sign-in");
  await victim.getByRole("link", { name: "Sign in with Example" }).click();
  await victim.waitForURL(`${identity.issuer}/interaction/*`);
  const attempt = (await victim.context().cookies(world.url)).find((it) => it.name === "zeroone_oidc");
  const state = new URLSearchParams(attempt.value).get("s");
  await victim.goto(`${world.url}/api/auth/oidc/callback?code=invented&state=${state}`);
  await says(victim, "The identity provider cannot be used");
  // It was good for one answer.
  await victim.goto(`${world.url}/api/auth/oidc/callback?code=invented&state=${state}`);
  await says(victim, "begun in another browser");
  assert.deepEqual(await ours(victim), []);
  // Who says no at the provider comes back, and is told so.
  await victim.goto("/sign-in");
  await victim.getByRole("link", { name: "Sign in with Example" }).click();
  await victim.waitForURL(`${identity.issuer}/interaction/*`);
  await victim.getByRole("link", { name: "[ Cancel ]" }).click();
  await says(victim, "cancelled or refused");
  // A program gets a problem.
  const told = await fetch(`${world.url}/api/auth/oidc/callback?code=a&state=b`, { redirect: "manual" });
  assert.deepEqual([told.status, (await told.json()).code], [403, "forbidden"]);
  assert.deepEqual(world.complaints, []);
});
