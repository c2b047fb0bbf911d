// An agent's own page at its own host name, in a real browser: that of the embedded gateway, and those that ZeroClaw brings.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import test from "node:test";
import { promisify } from "node:util";
import { World, picture, says } from "./world.mjs";

// Names below it are this machine, and pages there may what pages behind TLS may: ZeroClaw 0.1 makes its ids with `crypto.randomUUID`.
const DOMAIN = "agents.localhost";
const SETTINGS = { ZEROONE_PROXY__DOMAIN: DOMAIN };
const docker = async (...words) => (await promisify(execFile)("docker", words, { timeout: 20_000 })).stdout.trim();

/** The agent's page, for somebody who has the code that its owner was given. */
async function enter(world, agent) {
  const invited = await world.api(`/api/agents/${agent.id}/dashboard`, { method: "POST" });
  assert.equal(invited.host, `${agent.slug}.${DOMAIN}`);
  const context = await world.browser.newContext();
  context.setDefaultTimeout(30_000);
  const page = await context.newPage();
  const failed = [];
  page.on("pageerror", (error) => failed.push(error.message));
  await page.goto(`http://${invited.host}:${new URL(world.url).port}/`);
  return { page, code: invited.code, failed };
}

test("the embedded gateway's page, by its own host name", async () => {
  const world = await World.start(SETTINGS);
  try {
    const agent = await world.running("Ada");
    const { page, code, failed } = await enter(world, agent);
    await page.getByLabel("Code or token").fill(code);
    await page.getByRole("button", { name: "Pair", exact: true }).click();
    await page.getByRole("link", { name: "Chat" }).click();
    await page.getByLabel("Message", { exact: true }).fill("hello there");
    await page.getByRole("button", { name: "Send" }).click();
    await says(page.locator("#log"), "You said:");
    await picture(page, "host-embedded");
    assert.deepEqual(failed, []);
    // A stranger at the same name gets a page that asks, and nothing behind it.
    const stranger = await page.evaluate(async () => (await fetch("/api/status", { headers: { Authorization: "Bearer zv_guessed" } })).status);
    assert.equal(stranger, 401);
  } finally {
    await world.stop();
  }
});

for (const version of ["0.1.7", "0.6.9"]) {
  const image = `zeroclaw:${version}`;
  const there = await docker("image", "inspect", image).then(() => true, () => false);
  // The crate of 0.8 is published without its page, so that images which are built from it have none.
  test(`the page of ZeroClaw ${version}, by its own host name`, { skip: !there && `there is no image ${image}` }, async () => {
    const address = await docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}");
    const settings = { ...SETTINGS, ZEROONE_DOCKER__IMAGE: image };
    const world = await World.start(settings, { runtime: "docker", model: { address, host: "host.docker.internal" } });
    try {
      const agent = await world.running("Ada");
      const { page, code, failed } = await enter(world, agent);
      await page.getByPlaceholder("6-digit code").fill(code);
      await page.getByRole("button", { name: "Pair", exact: true }).click();
      // Another page is opened only when this one has its token.
      await page.getByPlaceholder("6-digit code").waitFor({ state: "detached" });
      await page.goto(new URL("/agent", page.url()).href);
      const field = page.getByPlaceholder(/message/i);
      await field.fill("hello there");
      await field.press("Enter");
      await says(page.locator("body"), "You said:");
      await picture(page, `host-${version}`);
      assert.deepEqual(failed, []);
    } finally {
      await world.stop();
    }
  });
}
