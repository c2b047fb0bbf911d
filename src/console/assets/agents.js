// The list of agents: live, searched, filtered, in pages; and commands to several of them.

import { $, $$, busy, fill, h, number, toast, when } from "./dom.js";
import { call, query, sentence, to } from "./api.js";
import { follow } from "./stream.js";
import { attempt, failed, me, start } from "./shell.js";
import { badge, command, may, NAMES, reason, sure } from "./status.js";
import { empty, Pages, table } from "./table.js";

/** CPU and memory have no events: they are read again this often. */
const REFRESH_MS = 10_000;
/** Events of a moment are one reading. */
const SETTLE_MS = 150;

/** A list of agents as pages: `path` is where it comes from, `fixed` is always asked for, `extra` is one column more. */
export class AgentList {
  constructor({ path, fixed = {}, selectable = false, extra = null }) {
    Object.assign(this, { path, fixed, selectable, extra, chosen: new Set(), shown: [], seen: 0 });
    this.pages = new Pages($("#pager"), () => this.load());
    const form = $("#filters");
    const given = new URLSearchParams(location.search);
    form.elements.search.value = given.get("search") ?? "";
    for (const box of $$('[name="status"]', form)) box.checked = (given.get("status") ?? "").split(",").includes(box.value);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      this.pages.reset();
      this.soon();
    });
    setInterval(() => document.hidden || this.soon(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.soon());
    addEventListener("service-back", () => this.soon());
  }

  get filter() {
    const form = $("#filters");
    return { search: form.elements.search.value.trim(), status: $$('[name="status"]:checked', form).map((it) => it.value).join(",") };
  }

  /** Reads again, once for all that asks at the same time. */
  soon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.load();
    }, SETTLE_MS);
  }

  async load() {
    const filter = this.filter;
    history.replaceState(null, "", query(location.pathname, { ...filter, ...this.fixed }));
    const turn = ++this.seen;
    try {
      const page = await call(query(this.path, { ...filter, ...this.fixed, limit: 50, cursor: this.pages.cursor }));
      // A later reading was faster.
      if (turn !== this.seen) return;
      this.show(page, filter);
    } catch (error) {
      if (turn !== this.seen || error.status === 401) return;
      if (!this.shown.length) await failed($("#list"), error, () => this.load());
    }
  }

  show(page, filter) {
    this.shown = page.data;
    this.pages.show(page);
    const ids = new Set(page.data.map((agent) => agent.id));
    this.chosen = new Set([...this.chosen].filter((id) => ids.has(id)));
    const focused = document.activeElement?.dataset?.focus;
    if (!page.data.length) fill($("#list"), this.nothing(filter));
    else fill($("#list"), table("Agents", this.columns(), page.data.map((agent) => this.row(agent)), { class: "agents" }));
    if (focused) $(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
    this.selection();
  }

  nothing({ search, status }) {
    if (search || status) return empty("No agent fits.", "Search for something else, or show other statuses.");
    return this.selectable
      ? empty("You have no agents yet.", "An agent talks to a model, remembers, and can be reached here, over the API and in your channels. ", h("a", { href: to("/agents/new") }, "Make the first one"), ".")
      : empty("There are no agents yet.");
  }

  columns() {
    const all = h("input", { type: "checkbox", "aria-label": "Select all", "data-focus": "all", onchange: (event) => this.chooseAll(event.target.checked) });
    all.checked = this.shown.length > 0 && this.shown.every((agent) => this.chosen.has(agent.id));
    return [...(this.selectable ? [all] : []), "Agent", "Status", "Model", ...(this.extra ? [this.extra.name] : []), "Restarts", "CPU", "Memory", "Changed"];
  }

  row(agent) {
    const box = h("input", { type: "checkbox", "aria-label": `Select ${agent.name}`, "data-focus": `box-${agent.id}`, onchange: (event) => this.choose(agent.id, event.target.checked) });
    box.checked = this.chosen.has(agent.id);
    const why = reason(agent);
    return [
      ...(this.selectable ? [box] : []),
      [h("a", { class: "strong", href: to(`/agents/${agent.id}`), "data-focus": `link-${agent.id}` }, agent.name), h("span", { class: "hint below" }, agent.slug)],
      [badge(agent.status), why ? h("span", { class: "hint below" }, why) : null],
      [h("span", {}, agent.model), h("span", { class: "hint below" }, agent.provider)],
      ...(this.extra ? [this.extra.cell(agent)] : []),
      number(agent.restarts),
      agent.cpuPercent === null ? "–" : `${number(agent.cpuPercent, 1)} %`,
      agent.memoryMb === null ? "–" : `${number(agent.memoryMb)} MiB`,
      when(agent.updatedAt),
    ];
  }

  choose(id, on) {
    this.chosen[on ? "add" : "delete"](id);
    this.selection();
  }

  chooseAll(on) {
    this.chosen = new Set(on ? this.shown.map((agent) => agent.id) : []);
    for (const box of $$('td input[type="checkbox"]', $("#list"))) box.checked = on;
    this.selection();
  }

  selection() {
    const bar = $("#selection");
    if (!bar) return;
    const chosen = this.shown.filter((agent) => this.chosen.has(agent.id));
    bar.hidden = !chosen.length;
    $("#selected").textContent = chosen.length === 1 ? "1 agent selected" : `${chosen.length} agents selected`;
    for (const button of $$("[data-command]", bar)) button.disabled = !chosen.some((agent) => may[button.dataset.command](agent.status));
  }

  /** A command to all that are selected and can take it; some may fail, and it is said how many. */
  async run(name) {
    const fit = this.shown.filter((agent) => this.chosen.has(agent.id) && may[name](agent.status));
    const what = fit.length === 1 ? fit[0].name : `${fit.length} agents`;
    if (!(await sure(name, what, name === "delete" ? (fit.length === 1 ? fit[0].slug : String(fit.length)) : null))) return;
    const wrong = [];
    for (const agent of fit) {
      try {
        await command(agent.id, name);
      } catch (error) {
        wrong.push(`${agent.name}: ${await sentence(error)}`);
      }
      this.soon();
    }
    if (wrong.length) toast(`${NAMES[name]} failed for ${wrong.length} of ${fit.length}. ${wrong[0]}`, "bad");
  }
}

if (location.pathname === to("/")) {
  start(async () => {
    const list = new AgentList({ path: "/api/agents", selectable: true });
    for (const button of $$("#selection [data-command]")) {
      button.addEventListener("click", () => busy(button, () => attempt(() => list.run(button.dataset.command))));
    }
    room();
    await list.load();
    follow("/api/events", {
      on: ({ event, data }) => {
        list.soon();
        if (event === "removed" || data.cause === "created") room();
      },
      opened: () => list.soon(),
    });
  });
}

async function room() {
  const who = await call("/api/me").catch(() => me());
  const most = who.limits.maxAgents;
  $("#room").textContent = most === null ? `${who.used} in use` : `${who.used} of ${most} in use, plan ${who.plan}`;
}
