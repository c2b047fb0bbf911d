// Every page: for everybody (axe, both colour schemes, narrow and wide), light, and harmless whatever is written in it.

import { strict as assert } from "node:assert";
import { after, before, test } from "node:test";
import { HOSTILE } from "./model.mjs";
import { answered, loaded, open, picture, says, talk, until, violations, World } from "./world.mjs";

/** What is put into every field that takes a text. */
const MARKUP = "<img src=x onerror=hacked=1>";
let world;
let agent;
let pages;

before(async () => {
  world = await World.start({ ZEROONE_ACCOUNTS__REGISTRATION: "open" });
  world.model.answer = () => HOSTILE;
  agent = await world.running(MARKUP, { agentName: MARKUP, userName: MARKUP, communicationStyle: MARKUP, model: `${MARKUP} model` });
  await world.api(`/api/agents/${agent.id}/message`, { method: "POST", json: { message: MARKUP, session: "hostile" } });
  // Something to see: an incident, and one that failed.
  process.kill(await world.pid(agent.id), "SIGKILL");
  await until("the incident is over", async () => (await world.api(`/api/agents/${agent.id}/incidents`)).data[0]?.state === "recovered");
  await world.api("/api/keys", { method: "POST", json: { name: MARKUP } });
  const own = `/agents/${agent.id}`;
  pages = {
    agents: "/",
    new: "/agents/new",
    import: "/agents/import",
    overview: own,
    chat: `${own}/chat`,
    logs: `${own}/logs`,
    usage: `${own}/usage`,
    settings: `${own}/settings`,
    channels: `${own}/channels`,
    manage: `${own}/manage`,
    account: "/account",
    users: "/admin/users",
    "all-agents": "/admin/agents",
    service: "/admin/service",
    orphans: "/admin/orphans",
    audit: "/admin/audit",
    docs: "/api/docs",
    problem: "/problems/quota-exceeded",
  };
});
after(() => world?.stop());

for (const [scheme, width] of [["light", 1280], ["dark", 1280], ["light", 360], ["dark", 390]]) {
  test(`pages are for everybody: ${scheme}, ${width} pixels`, async () => {
    const { page, context } = await world.administrator({ colorScheme: scheme, viewport: { width, height: 800 }, reducedMotion: "reduce" });
    const wrong = [];
    for (const [name, path] of Object.entries(pages)) {
      await open(page, path);
      for (const it of await violations(page)) wrong.push(`${name}: ${it}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) wrong.push(`${name}: ${wide} pixels too wide`);
      await picture(page, `${name}-${width}-${scheme}`);
    }
    await context.clearCookies();
    await open(page, "/sign-in");
    for (const it of await violations(page)) wrong.push(`sign-in: ${it}`);
    await picture(page, `sign-in-${width}-${scheme}`);
    await context.close();
    assert.deepEqual(wrong, []);
  });
}

test("whatever is written anywhere is shown as text", async () => {
  const { page, context } = await world.administrator();
  for (const path of Object.values(pages)) {
    await open(page, path);
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined, path);
    assert.equal(await page.locator("main img, main script, main iframe, main svg[onload]").count(), 0, path);
  }
  await open(page, pages.agents);
  await says(page, MARKUP);
  // A conversation with a model that answers in markup.
  await open(page, pages.chat);
  await talk(page, MARKUP);
  const answer = page.locator(".said.agent").last();
  await says(answer, "<script>window.hacked = 1</script>");
  await says(answer, "<svg onload=window.hacked=1></svg>");
  assert.equal(await answer.locator("a[href^='javascript']").count(), 0);
  await answered(page);
  // A model that fails with markup.
  world.model.fail = 402;
  await talk(page, "and now?");
  await page.locator(".said.user.failed .note").waitFor();
  world.model.fail = null;
  assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
  await context.close();
  assert.deepEqual(world.complaints, []);
});

test("a page is light", async (t) => {
  const { context } = await world.administrator();
  const wrong = [];
  for (const [name, path] of Object.entries(pages)) {
    const page = await context.newPage();
    const session = await context.newCDPSession(page);
    await session.send("Network.enable");
    await session.send("Network.setCacheDisabled", { cacheDisabled: true });
    let bytes = 0;
    session.on("Network.loadingFinished", (event) => (bytes += event.encodedDataLength));
    await open(page, path);
    // How long it took is told, and judged by whoever reads it: machines differ.
    const { responseEnd, requestStart, domContentLoadedEventEnd } = await page.evaluate(() => performance.getEntriesByType("navigation")[0].toJSON());
    t.diagnostic(`${name}: ${Math.ceil(bytes / 1024)} KiB, shell in ${Math.round(responseEnd - requestStart)} ms, usable after ${Math.round(domContentLoadedEventEnd)} ms`);
    if (bytes > 150 * 1024) wrong.push(`${name} weighs ${bytes} bytes`);
    await page.close();
  }
  await context.close();
  assert.deepEqual(wrong, []);
});

test("the keyboard alone is enough", async () => {
  const { page, context } = await world.administrator();
  await open(page, "/");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
  await page.keyboard.press("Enter");
  // From the content on, Tab leads to the agent, and Enter opens it.
  await until("the agent has the focus", async () => {
    await page.keyboard.press("Tab");
    return page.evaluate(() => document.activeElement?.dataset?.focus?.startsWith("link-"));
  });
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid", "the focus is seen");
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/agents/${agent.id}`);
  // A dialog takes the focus, Escape leaves it, and the focus comes back.
  const button = page.locator("#agent-commands [data-command='stop']");
  await button.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.ok(await page.evaluate(() => document.activeElement.closest("dialog") !== null));
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal((await world.api(`/api/agents/${agent.id}`)).status, "RUNNING");
  await context.close();
});

test("what an agent used is shown over time too", async () => {
  await world.api(`/api/agents/${agent.id}/message`, { method: "POST", json: { message: "hello" } });
  const { page, context } = await world.administrator();
  await open(page, pages.usage);
  const figure = (name) => page.getByRole("img", { name: new RegExp(`^${name}\\.`) });
  await figure("Processor").waitFor();
  // A minute is written when it is over.
  await until(
    "the last hour has an answer",
    async () => {
      await page.getByLabel("Time", { exact: true }).selectOption("now");
      await page.getByLabel("Time", { exact: true }).selectOption("hour");
      await loaded(page);
      return (await figure("Messages").count()) === 1;
    },
    120_000,
  );
  assert.match(await figure("Messages").getAttribute("aria-label"), /Answered: last \d+, at most [1-9]/);
  assert.match(await figure("Time to an answer").getAttribute("aria-label"), /Half of them: last/);
  assert.match(await figure("Tokens").getAttribute("aria-label"), /at most [1-9]/);
  await page.getByLabel("Time", { exact: true }).selectOption("month");
  await figure("Memory").waitFor();
  await until("the axis tells days", async () => /[A-Z][a-z]{2}/.test(await page.locator(".ends").first().textContent()));
  assert.deepEqual(await violations(page), []);
  await picture(page, "usage-month");
  // All agents together, for administrators.
  await open(page, pages.service);
  assert.match(await figure("Messages").getAttribute("aria-label"), /Answered: last \d+, at most [1-9]/);
  assert.deepEqual(await violations(page), []);
  await picture(page, "service-figures");
  await context.close();
});
