// What a person does from the first start on, and what the pages show while things go wrong.

import { strict as assert } from "node:assert";
import { after, before, test } from "node:test";
import { answered, loaded, open, PASSWORD, says, signIn, talk, until, World } from "./world.mjs";

let world;
before(async () => (world = await World.start()));
after(() => world?.stop());

const status = (page, word) => page.locator("#agent-status").getByText(word, { exact: true }).waitFor();

test("from the first start to an agent that recovers, changes and goes", async () => {
  assert.ok(world.link, "the first start prints a link");
  const context = await world.context();
  const page = await context.newPage();
  // Nobody is signed in: the way leads to the sign-in page and back.
  await page.goto("/");
  await page.waitForURL("**/sign-in");
  await page.goto(world.link);
  await page.reload();
  await page.getByRole("button", { name: "Sign in with the link" }).click();
  await page.getByRole("heading", { name: "Account" }).waitFor();
  await page.getByLabel("New password").fill(PASSWORD);
  await page.getByRole("button", { name: "Change the password" }).click();
  await says(page, "The password is changed");
  await page.getByRole("button", { name: "Sign out" }).click();
  await says(page, "You are signed out.");
  await signIn(page, "admin@localhost", "wrong wrong wrong");
  await says(page, "The e-mail address or the password is wrong.");
  await signIn(page, "admin@localhost");
  await says(page, "You have no agents yet.");

  // A form that says what is missing, at the field.
  await page.getByRole("link", { name: "New agent" }).click();
  await page.waitForURL("**/agents/new");
  await loaded(page);
  await page.getByLabel("Name", { exact: true }).fill("Ada");
  await page.getByLabel("Provider", { exact: true }).selectOption("openai");
  await page.getByLabel("Model", { exact: true }).fill("stand-in");
  await page.getByText("More about the model").click();
  await page.getByLabel("Another address of the provider").fill(world.model.url);
  await page.getByRole("button", { name: "Create the agent" }).click();
  await says(page.locator("#apiKey-error"), "Is required by openai");
  await page.getByLabel("API key of the provider").fill("sk-test");
  await page.getByRole("button", { name: "Create the agent" }).click();

  // RUNNING without a reload, and its timeline.
  await page.waitForURL("**/agents/*-*");
  const id = page.url().split("/").at(-1);
  await status(page, "Running");
  await says(page, "The service paired with it");

  // A chat whose answer comes in pieces.
  await page.getByRole("link", { name: "Chat" }).click();
  world.model.pace = 40;
  world.model.answer = (words) => `**Hello.** ${"and on ".repeat(40)} You said ${words}`;
  await talk(page, "one");
  const answer = page.locator(".said.agent .text").last();
  await until("a part of the answer is there", async () => {
    const text = (await answer.count()) ? await answer.textContent() : "";
    return text.includes("Hello.") && !text.includes("You said");
  });
  await says(page.locator(".said.agent"), "You said one");
  await answered(page);
  assert.equal(await answer.locator("strong").first().textContent(), "Hello.");
  // What was said is there after a reload.
  world.model.pace = 5;
  await page.reload();
  await says(page.locator(".said.agent"), "You said one");

  // Killed while it is looked at: the page tells, a message waits, and is answered.
  process.kill(await world.pid(id), "SIGKILL");
  await talk(page, "after the fall");
  await says(page.locator(".said.agent"), "You said after the fall");
  await page.getByRole("link", { name: "Overview" }).click();
  await status(page, "Running");
  const incident = page.locator(".incidents li[data-state='recovered']").first();
  await incident.waitFor();
  assert.match(await incident.textContent(), /It ended, recovered after .*signal 9/s);
  assert.ok((await incident.locator("svg.steps .step").count()) > 0, "the steps are a bar");

  // A change is shown before it is saved, with what it does.
  await page.getByRole("link", { name: "Settings" }).click();
  await loaded(page);
  await page.getByLabel("Name", { exact: true }).fill("Ada the second");
  await page.getByRole("button", { name: "Review changes" }).click();
  await says(page.getByRole("dialog"), "does not restart");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("heading", { name: "Ada the second" }).waitFor();
  await page.getByLabel("Model", { exact: true }).fill("stand-in-2");
  await page.getByRole("button", { name: "Review changes" }).click();
  await says(page.getByRole("dialog"), "The agent restarts for this");
  await page.getByRole("button", { name: "Save and restart" }).click();
  await says(page, "Saved. The agent restarts.");
  await until("the model is changed", async () => (await world.api(`/api/agents/${id}`)).model === "stand-in-2");

  // The log.
  await page.getByRole("link", { name: "Logs" }).click();
  await page.locator(".log p").first().waitFor();
  const lines = await page.locator(".log p").count();
  await page.getByLabel("Search").fill("there is no such line");
  await until("no line fits", async () => (await page.locator(".log p:visible").count()) === 0);
  await page.getByLabel("Search").fill("");
  assert.ok((await page.locator(".log p:visible").count()) >= lines);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
  assert.equal(download.suggestedFilename(), "ada.log");

  // And away.
  await page.getByRole("link", { name: "Manage" }).click();
  await page.getByRole("button", { name: "Delete this agent" }).click();
  const dialog = page.getByRole("dialog");
  assert.ok(await dialog.getByRole("button", { name: "Delete" }).isDisabled(), "the name has to be typed first");
  await dialog.getByRole("textbox").fill("ada");
  await dialog.getByRole("button", { name: "Delete" }).click();
  await says(page, "You have no agents yet.");
  await context.close();
  assert.deepEqual(world.complaints, []);
});

test("two users never see each other's things", async () => {
  const ada = await world.user("ada@example.org");
  const bob = await world.user("bob@example.org", "free");
  await says(ada.page, "You have no agents yet.");
  await says(ada.page, "0 of 20 in use");
  await says(bob.page, "0 of 3 in use");
  const create = async ({ page }, name) => {
    await open(page, "/agents/new");
    await page.getByLabel("Name", { exact: true }).fill(name);
    await page.getByLabel("Provider", { exact: true }).selectOption("ollama");
    await page.getByLabel("Model", { exact: true }).fill("stand-in");
    await page.getByText("More about the model").click();
    await page.getByLabel("Another address of the provider").fill(world.model.url);
    await page.getByRole("button", { name: "Create the agent" }).click();
    await page.waitForURL("**/agents/*-*");
    return page.url();
  };
  const hers = await create(ada, "Hers");
  const his = await create(bob, "His");
  await ada.page.goto("/");
  await says(ada.page, "Hers");
  assert.equal(await ada.page.getByText("His", { exact: true }).count(), 0);
  for (const [who, other] of [[ada, his], [bob, hers]]) {
    await who.page.goto(other);
    await says(who.page, "There is no such agent");
    // No administration either.
    assert.ok(await who.page.locator("#administration").isHidden());
    await who.page.goto("/admin/users");
    await who.page.getByRole("alert").first().waitFor();
  }
  // An administrator does, and is told whose it is.
  const { page } = await world.administrator();
  await page.goto(hers);
  await says(page, "This agent belongs to another user.");
  await page.goto("/admin/agents");
  await says(page, "ada@example.org");
  await says(page, "bob@example.org");
  assert.deepEqual(world.complaints, []);
});

test("a session that ends under an open page is told, and what was typed stays until then", async () => {
  const { id, page, context } = await world.user("eve@example.org");
  await open(page, "/agents/new");
  await page.getByLabel("Name", { exact: true }).fill("typed");
  const { data } = await world.api(`/api/admin/users/${id}/sessions`);
  assert.equal(data.length, 1);
  await world.api(`/api/admin/users/${id}/sessions`, { method: "DELETE" });
  await page.getByLabel("Model", { exact: true }).fill("m");
  await page.getByLabel("API key of the provider").fill("k");
  await page.getByRole("button", { name: "Create the agent" }).click();
  const dialog = page.getByRole("dialog");
  await says(dialog, "You are signed out");
  assert.equal(await page.locator("#new [name=name]").inputValue(), "typed");
  await dialog.getByRole("button", { name: "Sign in" }).click();
  await says(page, "Your session has ended.");
  await signIn(page, "eve@example.org");
  await page.waitForURL("**/agents/new");
  // A page that waits for events is told as well: the stream ends, and the next request is refused.
  await page.goto("/");
  await says(page, "You have no agents yet.");
  await world.api(`/api/admin/users/${id}/sessions`, { method: "DELETE" });
  await says(page.getByRole("dialog"), "You are signed out");
  await context.close();
});

test("a service that is started anew under an open page is found again", async () => {
  const { page, context } = await world.administrator();
  const { id } = await world.running("Grace");
  await page.goto(`/agents/${id}`);
  await status(page, "Running");
  const before = await world.pid(id);
  await world.stopService();
  await says(page.locator("#connection"), "The connection to the service is lost");
  await world.serve();
  await says(page.locator("#connection"), "The connection is back");
  await status(page, "Running");
  assert.equal(await world.pid(id), before, "the agent went on meanwhile");
  // And it is live again.
  await world.api(`/api/agents/${id}/stop`, { method: "POST" });
  await status(page, "Stopped");
  await context.close();
  assert.deepEqual(world.complaints, []);
});
