// What is done beside the daily use: a key is tried, an agent is exported and imported, its own page is opened, and what belongs
// to no agent is dealt with.

import { strict as assert } from "node:assert";
import { after, before, test } from "node:test";
import { copyFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { loaded, open, picture, says, until, violations, World } from "./world.mjs";

const MARKUP = "<img src=x onerror=hacked=1>";
let world;
before(async () => (world = await World.start({ ZEROONE_RECONCILE__ORPHANS: "report", ZEROONE_PROXY__DOMAIN: "agents.localhost" })));
after(() => world?.stop());

test("a key is tried before an agent is made with it", async () => {
  const { page, context } = await world.user("ada@example.org");
  await open(page, "/agents/new");
  await page.getByLabel("Name", { exact: true }).fill("Ada");
  await page.getByLabel("Provider", { exact: true }).selectOption("openai");
  await page.getByLabel("Model", { exact: true }).fill("stand-in");
  await page.getByText("More about the model").click();
  await page.getByLabel("Another address of the provider").fill(world.model.url);
  const key = page.getByLabel("API key of the provider");
  const tryIt = async (text, model = "stand-in") => {
    await key.fill(text);
    await page.getByLabel("Model", { exact: true }).fill(model);
    await page.getByRole("button", { name: "Test the key" }).click();
  };
  const told = page.locator("#checked");
  await tryIt("sk-wrong");
  await says(told, "answered 401");
  await tryIt("sk-test", "other");
  await says(told, "is not among the 2 models");
  await picture(page, "new-checked");
  await tryIt("sk-test");
  await says(told, "The provider takes the key and has stand-in.");
  assert.deepEqual(await violations(page), []);
  // What was typed is another key: the answer was not about it.
  await key.fill("sk-other");
  await told.waitFor({ state: "hidden" });
  assert.deepEqual((await world.api("/api/admin/agents")).data, [], "nothing was made");
  await context.close();
});

test("an agent goes into a file and comes out of it as another one", async () => {
  const agent = await world.running("Grace");
  const { page, context } = await world.administrator();
  await open(page, `/agents/${agent.id}/manage`);
  const saving = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export" }).click();
  const file = join(world.data, "grace.tar");
  await (await saving).saveAs(file);
  await open(page, "/agents/new");
  await page.getByRole("link", { name: "Import an exported agent" }).click();
  await page.waitForURL("**/agents/import");
  await loaded(page);
  await page.getByRole("button", { name: "Import the agent" }).click();
  await page.locator("#file-error").getByText(/\S/).waitFor();
  await page.getByLabel("File").setInputFiles(file);
  await page.getByLabel("Name").fill("Grace again");
  await page.getByLabel("API key of the provider").fill("sk-test");
  await page.getByRole("button", { name: "Import the agent" }).click();
  await page.waitForURL("**/agents/*-*");
  await page.locator("#agent-name").getByText("Grace again").waitFor();
  await page.locator("#agent-status").getByText("Running", { exact: true }).waitFor();
  // A file that is none is refused in words.
  await open(page, "/agents/import");
  await page.getByLabel("File").setInputFiles({ name: "x.tar", mimeType: "application/x-tar", buffer: Buffer.from("no archive") });
  await page.getByRole("button", { name: "Import the agent" }).click();
  await says(page.locator("#problem"), "archive");
  await context.close();
});

test("an agent's own page is opened with a code", async () => {
  const agent = await world.running("Joan");
  const { page, context } = await world.administrator();
  await open(page, `/agents/${agent.id}/manage`);
  await page.getByRole("button", { name: "Open its own page" }).click();
  const dialog = page.getByRole("dialog");
  const code = (await dialog.locator("code").textContent()).trim();
  assert.match(code, /^[A-Z2-9]{6}$/);
  const link = new URL(await dialog.getByRole("link").getAttribute("href"));
  assert.equal(link.hostname, `${agent.slug}.agents.localhost`);
  assert.equal(link.port, new URL(world.url).port);
  await picture(page, "dashboard-code");
  assert.deepEqual(await violations(page), []);
  world.elsewhere.push(link.origin);
  const own = await context.newPage();
  await own.goto(link.href);
  const paired = await own.evaluate(async (it) => (await fetch("/pair", { method: "POST", headers: { "X-Pairing-Code": it } })).json(), code);
  assert.equal(paired.paired, true);
  await context.close();
});

test("what belongs to no agent is given to somebody, or removed", async () => {
  const { id: owner } = await world.api("/api/admin/users", { method: "POST", json: { email: "eve@example.org", plan: "pro" } });
  // Yesterday's store comes back: what was made since is still there, and belongs to nobody.
  const store = join(world.data, "data", "zeroone.redb");
  await world.stopService();
  await copyFile(store, `${store}.yesterday`);
  await world.serve();
  const agents = [await world.running(MARKUP, { model: `${MARKUP} model` }), await world.running("Lost")];
  await world.stopService();
  await rm(store);
  await copyFile(`${store}.yesterday`, store);
  await world.serve();

  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const { page, context } = await world.administrator({ colorScheme, viewport: { width, height: 800 } });
      await open(page, "/admin/orphans");
      await says(page, MARKUP);
      assert.equal(await page.locator("main img").count(), 0);
      assert.deepEqual(await violations(page), []);
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0, "not too wide");
      await picture(page, `orphans-${width}-${colorScheme}`);
      await context.close();
    }
  }
  const { page, context } = await world.administrator();
  await open(page, "/admin/orphans");
  await page.getByRole("button", { name: `Adopt ${agents[0].slug}` }).click();
  await page.getByLabel("Owner, by e-mail address").fill("nobody@example.org");
  await page.getByRole("dialog").getByRole("button", { name: "Adopt" }).click();
  await says(page, "Nobody has the address nobody@example.org.");
  await page.getByRole("button", { name: `Adopt ${agents[0].slug}` }).click();
  await page.getByLabel("Owner, by e-mail address").fill("eve@example.org");
  await page.getByRole("dialog").getByRole("button", { name: "Adopt" }).click();
  await page.waitForURL(`**/agents/${agents[0].id}`);
  assert.equal((await world.api(`/api/agents/${agents[0].id}`)).userId, owner);
  await open(page, "/admin/orphans");
  await page.getByRole("button", { name: `Remove ${agents[1].slug}` }).click();
  await page.getByLabel(/^Type/).fill(agents[1].slug);
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await says(page, "There are none.");
  await until("nothing is left of it", async () => (await world.api("/api/admin/orphans")).data.length === 0);
  const told = (await world.api("/api/admin/audit?action=orphans&outcome=done")).data;
  assert.equal(told.length, 2);
  await context.close();
  assert.deepEqual(world.complaints, []);
});
