// The embedded gateway's own page, for somebody who runs it alone.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { HOSTILE, startModel } from "./model.mjs";
import { PATIENCE, launch, picture, says, until, violations } from "./world.mjs";

const { ZEROONE_PROGRAM } = process.env;
const TABS = ["Status", "Chat", "Memory", "Schedule", "Cost", "Settings", "Events"];

/** A gateway with a home and a model of its own, and a browser. */
class Gateway {
  port = "0";
  failed = [];

  static async start() {
    const gateway = new Gateway();
    gateway.home = await mkdtemp(join(tmpdir(), "zeroone-page-"));
    gateway.model = await startModel();
    await mkdir(join(gateway.home, ".zeroclaw"));
    const config = `default_provider = "custom:${gateway.model.url}"\ndefault_model = "stand-in"\n[reliability]\nprovider_retries = 0\n`;
    await writeFile(join(gateway.home, ".zeroclaw", "config.toml"), config);
    await gateway.run();
    gateway.browser = await launch();
    return gateway;
  }

  /** Runs the program; again at the same address. */
  async run() {
    const env = { HOME: this.home, ZEROCLAW_GATEWAY_PORT: this.port };
    this.program = spawn(ZEROONE_PROGRAM, ["gateway"], { env, stdio: ["ignore", "pipe", "inherit"] });
    this.ended = new Promise((resolve) => this.program.once("exit", resolve));
    let printed = "";
    this.program.stdout.on("data", (part) => (printed += part));
    this.url = await until("the gateway listens", () => printed.match(/listening on (http:\S+)/)?.[1]);
    this.port = new URL(this.url).port;
    this.code ??= await until("it prints a code", () => printed.match(/X-Pairing-Code: (\d{6})/)?.[1]);
  }

  async kill() {
    this.program.kill("SIGKILL");
    await this.ended;
  }

  async stop() {
    await this.browser?.close();
    await this.kill();
    this.model.close();
    await rm(this.home, { recursive: true, force: true });
  }

  async context(options = {}) {
    const context = await this.browser.newContext({ baseURL: this.url, ...options });
    context.setDefaultTimeout(PATIENCE);
    context.on("page", (page) => page.on("pageerror", (error) => this.failed.push(error.message)));
    return context;
  }

  /** The chat, in a browser that was paired by the code. */
  async paired(options) {
    const context = await this.context(options);
    const page = await context.newPage();
    await page.goto("/");
    await page.getByLabel("Code or token").fill(this.code);
    await page.getByRole("button", { name: "Pair", exact: true }).click();
    await page.getByRole("link", { name: "Chat" }).click();
    return { context, page };
  }
}

async function say(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
}

const texts = (page, who) => page.locator(`#log .${who} .text`).allTextContents();
const answered = (page, count) => until(`${count} answers`, async () => (await page.locator("#working").isHidden()) && (await texts(page, "agent")).length === count);

test("nothing that was said is lost, torn or forgotten", async () => {
  const gateway = await Gateway.start();
  try {
    const { context, page } = await gateway.paired();
    gateway.model.pace = 40;
    // The second is said while the first is being answered.
    await say(page, "one two three four five six seven eight");
    await says(page.locator("#working"), /Thinking|Answering/);
    await say(page, "and again");
    await answered(page, 2);
    assert.deepEqual(await texts(page, "agent"), ["You said: one two three four five six seven eight", "You said: and again"]);
    await picture(page, "gateway-chat");

    // A reload and another tab: the same conversation, and nobody has to pair again.
    await page.reload();
    await answered(page, 2);
    await page.close();
    const second = await context.newPage();
    await second.goto("/#chat");
    await answered(second, 2);

    // The gateway dies in the middle of an answer: that is said, and what was said can be sent again.
    gateway.model.pace = 300;
    await say(second, "this one is cut in the middle of it");
    await says(second.locator("#log .agent").last(), "You said: this");
    await gateway.kill();
    await says(second.locator("#log"), "The connection broke before the answer was complete.");
    await says(second.locator("#connection"), "Connection lost");
    // What is said while nobody is there waits.
    await say(second, "are you back?");
    await says(second.locator("#log"), "Waiting to be sent.");
    gateway.model.pace = 5;
    await gateway.run();
    await says(second.locator("#log .agent").last(), "You said: are you back?");
    await second.getByRole("button", { name: "Send again" }).click();
    await says(second.locator("#log .agent").last(), "You said: this one is cut in the middle of it");
    assert.deepEqual(gateway.failed, []);
  } finally {
    await gateway.stop();
  }
});

test("a model that fails is told with its reason, and what it says is text", async () => {
  const gateway = await Gateway.start();
  try {
    const { page } = await gateway.paired();
    gateway.model.fail = 402;
    await say(page, "hello");
    await says(page.locator("#log .error"), /insufficient_quota/);
    gateway.model.fail = null;
    gateway.model.answer = () => HOSTILE;
    await page.getByRole("button", { name: "Send again" }).click();
    await says(page.locator("#log .agent"), "<iframe src=javascript:window.hacked=1>");
    await page.getByRole("link", { name: "Memory" }).click();
    await page.getByLabel("Key").fill("<b>key</b>");
    await page.getByLabel("Content").fill(HOSTILE.split("\n")[0]);
    await page.getByRole("button", { name: "Remember" }).click();
    await says(page.locator("#memory table"), "<b>key</b>");
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
    assert.deepEqual(gateway.failed, []);
  } finally {
    await gateway.stop();
  }
});

test("the page is for everybody: narrow and wide, light and dark", async () => {
  const gateway = await Gateway.start();
  try {
    const stranger = await (await gateway.context()).newPage();
    await stranger.goto("/");
    await stranger.getByLabel("Code or token").waitFor();
    assert.ok(await stranger.locator("#tabs").isHidden(), "there is nothing to choose from before it is paired");
    assert.deepEqual(await violations(stranger), []);

    const { context, page: first } = await gateway.paired({ viewport: { width: 360, height: 740 } });
    await say(first, "a-word-without-an-end-".repeat(12));
    await answered(first, 1);
    const { origins } = await context.storageState();
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [360, 1280]) {
        const paired = await gateway.context({ colorScheme, viewport: { width, height: 800 }, storageState: { cookies: [], origins } });
        const page = await paired.newPage();
        await page.goto("/");
        for (const tab of TABS) {
          await page.getByRole("link", { name: tab }).click();
          await page.getByRole("heading", { name: tab, exact: true }).waitFor();
          assert.deepEqual(await violations(page), [], `${tab}, ${colorScheme}, ${width}`);
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
          assert.ok(wide <= 0, `${tab} at ${width}: ${wide} pixels too wide`);
          await picture(page, `gateway-${tab.toLowerCase()}-${colorScheme}-${width}`);
        }
        await paired.close();
      }
    }
    assert.deepEqual(gateway.failed, []);
  } finally {
    await gateway.stop();
  }
});
