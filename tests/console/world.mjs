// A service with process agents, a model that answers as told, and a browser. Nothing of a test is left when it ends.

import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startModel } from "./model.mjs";

const { ZEROONE_PROGRAM, ZEROONE_BROWSER, ZEROONE_CONSOLE_MODULES, ZEROONE_CONSOLE_SHOTS } = process.env;
const require = createRequire(`${ZEROONE_CONSOLE_MODULES}/`);
const { chromium } = require("playwright-core");
const AXE = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
/** How long anything that is waited for may take. */
export const PATIENCE = 30_000;
export const PASSWORD = "correct horse battery";

/** Waits for a condition. */
export async function until(what, condition, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`did not happen in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const launch = () => chromium.launch({ executablePath: ZEROONE_BROWSER, headless: true, args: FLAGS, timeout: PATIENCE });

export class World {
  /** Starts all of it. `settings` are of the environment, such as `ZEROONE_ACCOUNTS__REGISTRATION`; `model` says where agents
   * find theirs. */
  static async start(settings = {}, { runtime = "process", model = {} } = {}) {
    const world = new World();
    world.settings = settings;
    world.runtime = runtime;
    world.data = await mkdtemp(join(tmpdir(), "zeroone-console-"));
    world.model = await startModel(model);
    await world.serve();
    world.browser = await launch();
    return world;
  }

  /** What the browser said of any page that is not as it should be. */
  complaints = [];
  /** Origins beside the service's own that pages of a test may go to. */
  elsewhere = [];

  /** Starts the service; again at the same address. */
  async serve() {
    const bind = this.url ? new URL(this.url).host : "127.0.0.1:0";
    const env = { ...process.env, ...this.settings, NO_COLOR: "1" };
    this.service = spawn(ZEROONE_PROGRAM, ["serve", "--data", join(this.data, "data"), "--bind", bind, "--runtime", this.runtime], { env, stdio: ["ignore", "pipe", "pipe"] });
    this.ended = new Promise((resolve) => this.service.once("exit", resolve));
    let printed = "";
    let log = "";
    this.service.stdout.on("data", (part) => (printed += part));
    this.service.stderr.on("data", (part) => (log = (log + part).slice(-20_000)));
    const end = this.ended.then((code) => {
      if (!printed.includes("listening on")) throw new Error(`the service ended with ${code}: ${log}`);
    });
    end.catch(() => {});
    this.url = await Promise.race([until("the service listens", () => printed.match(/listening on (http:\S+)/)?.[1]), end.then(() => null)]);
    if (!this.url) throw new Error(`the service ended: ${log}`);
    this.link ??= printed.match(/http:\S+\/sign-in#link=\S+/)?.[0];
    this.key ??= (await readFile(join(this.data, "data", "admin.key"), "utf8")).trim();
  }

  async stopService() {
    this.service.kill("SIGTERM");
    await this.ended;
  }

  async stop() {
    await this.browser?.close();
    const { data: agents } = await this.api("/api/admin/agents?limit=200").catch(() => ({ data: [] }));
    await Promise.all((agents ?? []).map(({ id }) => this.api(`/api/agents/${id}`, { method: "DELETE" }).catch(() => {})));
    await this.stopService();
    this.model.close();
    await rm(this.data, { recursive: true, force: true });
  }

  /** A call of the API with the administrator's key. */
  async api(path, { method = "GET", json, key = this.key } = {}) {
    const headers = { Authorization: `Bearer ${key}`, ...(json ? { "Content-Type": "application/json" } : {}) };
    const response = await fetch(this.url + path, { method, headers, body: json && JSON.stringify(json) });
    const body = response.status === 204 ? null : await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(body)}`);
    return body;
  }

  /** An agent with this world's model, in whatever status it is at first. */
  agent(name, more = {}) {
    const json = { name, provider: "openai", model: "stand-in", apiKey: "sk-test", providerUrl: this.model.url, ...more };
    const { key, ...fields } = json;
    return this.api("/api/agents", { method: "POST", json: fields, key });
  }

  async running(name, more) {
    const { id } = await this.agent(name, more);
    return this.api(`/api/agents/${id}/wait?status=RUNNING&timeout=60`, { key: more?.key });
  }

  /** The process of an agent of this world: the one that was given its folder. Nothing else may ever be killed. */
  async pid(id) {
    const folder = join(this.data, "data", "agents", id);
    const found = await until(`the process of ${id} is there`, async () => {
      const pids = [];
      for (const name of (await readdir("/proc")).filter((it) => /^\d+$/.test(it))) {
        const environment = await readFile(`/proc/${name}/environ`, "latin1").catch(() => "");
        if (environment.split("\0").some((it) => it.includes(folder))) pids.push(Number(name));
      }
      return pids.length === 1 ? pids : null;
    });
    return found[0];
  }

  /** A browser of its own, with nobody signed in. */
  async context(options = {}) {
    const context = await this.browser.newContext({ baseURL: this.url, viewport: { width: 1280, height: 900 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    // The browser tells here what a policy has refused, and what nobody caught.
    await context.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`)));
    context.on("page", (page) => {
      // What pages of somebody else do is theirs.
      const complain = (text) => this.elsewhere.some((origin) => page.url().startsWith(origin)) || this.complaints.push(text);
      page.on("console", (message) => message.text().startsWith("CSP") && complain(message.text()));
      page.on("pageerror", (error) => complain(`${page.url()}: ${error.message}`));
      page.on("request", (request) => {
        const url = new URL(request.url());
        if (url.protocol.startsWith("http") && url.origin !== this.url && !this.elsewhere.includes(url.origin)) complain(`a request to ${url.origin}`);
      });
    });
    return context;
  }

  /** A page of somebody who is signed in: a user of this world, with this address and plan. */
  async user(email, plan = "pro") {
    const { id } = await this.api("/api/admin/users", { method: "POST", json: { email, plan } });
    await this.api(`/api/admin/users/${id}/password`, { method: "POST", json: { password: PASSWORD } });
    const context = await this.context();
    const page = await context.newPage();
    await signIn(page, email);
    await page.getByRole("heading", { name: "Agents" }).waitFor();
    return { id, context, page };
  }

  /** A page of the administrator, who came by the link of the first start. */
  async administrator(options = {}) {
    const context = await this.context(options);
    const page = await context.newPage();
    const { path } = await this.api(`/api/admin/users/${(await this.api("/api/me")).id}/sign-in-link`, { method: "POST" });
    await page.goto(path);
    await page.getByRole("button", { name: "Sign in with the link" }).click();
    await page.getByRole("heading", { name: "Account" }).waitFor();
    return { context, page };
  }
}

export async function signIn(page, email, password = PASSWORD) {
  if (!page.url().includes("/sign-in")) await page.goto("/sign-in");
  await page.getByLabel("E-mail address").first().fill(email);
  await page.getByLabel("Password").first().fill(password);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
}

/** Opens a page, and waits until everything in it has loaded. */
export async function open(page, path) {
  await page.goto(path);
  await loaded(page);
}

export const loaded = (page) =>
  until("the page has loaded", () => page.evaluate(() => document.readyState === "complete" && !document.querySelector("[aria-busy='true']")).catch(() => false));

/** Sends a message in the chat. */
export async function talk(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
}

/** Waits until no answer is under way. */
export const answered = (page) => page.locator(".said.streaming, .said.waiting").first().waitFor({ state: "detached" });

/** Whether what is shown says this; waits for it. */
export const says = (place, text) => place.getByText(text).first().waitFor();

/** The rules of axe that the page breaks, each with an example. */
export async function violations(page) {
  await page.evaluate(AXE);
  const { violations: found } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return found.map((it) => `${it.id}: ${it.nodes[0].html.slice(0, 200)} ${it.nodes[0].failureSummary}`);
}

/** Keeps a picture of the page where the caller of the tests wants pictures. */
export async function picture(page, name) {
  if (!ZEROONE_CONSOLE_SHOTS) return;
  await mkdir(ZEROONE_CONSOLE_SHOTS, { recursive: true });
  await page.screenshot({ path: join(ZEROONE_CONSOLE_SHOTS, `${name}.png`), fullPage: true });
}
