// The page: plain browser JavaScript, no build step. What comes from the gateway is only ever put in as text.

import { Chat } from "./chat.js";
import { element, markdown, ago } from "./dom.js";

const base = location.pathname.replace(/[^/]*$/, "");
const TOKEN = "gateway-token";
/** In place of a token where none is needed: pairing is off, or a proxy adds the token on the way. */
const OPEN = "open";
const EVENTS_SHOWN = 200;
/** How often what changes by itself is asked for again. */
const REFRESH_MS = 5000;
/** Cells of more characters may be broken anywhere; short words stay whole. */
const LONG = 24;
const $ = (selector, from = document) => from.querySelector(selector);

/** Kept when the tab is closed, so that the next one need not be paired. In a private window it may not be there. */
const store = {
  get: (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set: (name, value) => {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, value);
    } catch {
      // It works without until the tab is closed.
    }
  },
};

let token = store.get(TOKEN) ?? "";
let shown = "";

// --- talking to the gateway ------------------------------------------------------------------------------------------

const authorization = () => (token && token !== OPEN ? { Authorization: `Bearer ${token}` } : {});

async function call(path, options = {}) {
  const headers = { ...authorization(), ...options.headers };
  if (options.json !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(options.json);
  }
  let response;
  try {
    response = await fetch(base + path, { ...options, headers });
  } catch {
    throw new Error("The gateway cannot be reached.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.status === 401 && token) forget();
  if (!response.ok) throw new Error(body.error ?? `The gateway answered ${response.status}.`);
  return body;
}

function notice(text) {
  $("#notice").textContent = text;
}

/** Runs an action and shows what went wrong. */
async function attempt(action) {
  notice("");
  try {
    await action();
  } catch (error) {
    notice(error.message);
  }
}

// --- building the page -----------------------------------------------------------------------------------------------

/** Fills a table; on a narrow screen each cell shows the name of its column. */
function fill(table, rows) {
  const names = [...table.querySelectorAll("th")].map((th) => th.textContent.trim());
  const made = rows.map((cells) => {
    const tr = document.createElement("tr");
    cells.forEach((cell, column) => {
      const td = document.createElement("td");
      if (names[column]) td.dataset.label = names[column];
      if (!(cell instanceof Node) && String(cell ?? "").length > LONG) td.className = "long";
      td.append(cell instanceof Node ? cell : String(cell ?? ""));
      tr.append(td);
    });
    return tr;
  });
  $("tbody", table).replaceChildren(...made);
}

/** A button for what cannot be undone: it asks once more. */
function sure(text, action) {
  const made = element("button", text, { type: "button" });
  let armed;
  made.addEventListener("click", () => {
    if (armed) return attempt(action);
    made.textContent = `${text}: sure?`;
    armed = setTimeout(() => {
      armed = undefined;
      made.textContent = text;
    }, 4000);
  });
  return made;
}

function pairs(list, entries) {
  list.replaceChildren(...entries.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

const time = (text) => (text ? new Date(text).toLocaleString() : "");
const dollars = (value) => `$${value.toFixed(4)}`;

// --- sections --------------------------------------------------------------------------------------------------------

const sections = {
  async status() {
    const status = await call("api/status");
    const channels = Object.entries(status.channels).filter(([, on]) => on).map(([name]) => name);
    pairs($("#status dl"), [
      ["Provider", status.provider],
      ["Model", status.model],
      ["Temperature", status.temperature ?? "the provider's default"],
      ["Memory", status.memory_backend],
      ["Channels", channels.join(", ") || "none"],
      ["Up for", ago(status.uptime_seconds)],
    ]);
    const parts = Object.entries(status.health.components);
    const rows = parts.map(([name, part]) => [
      name,
      element("span", part.status, { class: `state-${part.status}` }),
      part.restart_count,
      part.last_error,
    ]);
    fill($("#status table"), rows);
  },

  async chat() {
    chat.connect();
    $("#log").scrollTop = $("#log").scrollHeight;
    if (matchMedia("(pointer: fine)").matches) $("#chat textarea").focus();
  },

  async memory() {
    const query = new FormData($('[data-form="search"]')).get("query");
    const { entries } = await call(`api/memory${query ? `?query=${encodeURIComponent(query)}` : ""}`);
    const remove = (key) => async () => {
      await call(`api/memory/${encodeURIComponent(key)}`, { method: "DELETE" });
      await sections.memory();
    };
    const rows = entries.map((entry) => [
      entry.key,
      entry.content,
      entry.category,
      time(entry.timestamp),
      sure("Forget", remove(entry.key)),
    ]);
    fill($("#memory table"), rows);
  },

  async cron() {
    const { jobs } = await call("api/cron");
    const remove = (id) => async () => {
      await call(`api/cron/${encodeURIComponent(id)}`, { method: "DELETE" });
      await sections.cron();
    };
    const rows = jobs.map((job) => [
      job.command,
      [job.schedule ?? "", job.tz ? `(${job.tz})` : ""].join(" ").trim(),
      time(job.next_run),
      job.last_run ? `${time(job.last_run)}: ${job.last_status}` : "",
      job.last_output,
      sure("Remove", remove(job.id)),
    ]);
    fill($("#cron table"), rows);
  },

  async cost() {
    const { cost } = await call("api/cost");
    pairs($("#cost dl"), [
      ["Today", dollars(cost.daily_cost_usd)],
      ["This month", dollars(cost.monthly_cost_usd)],
      ["Since the start", dollars(cost.session_cost_usd)],
      ["Tokens", cost.total_tokens],
      ["Requests", cost.request_count],
    ]);
    const days = Object.entries(cost.by_day).reverse();
    const rows = days.flatMap(([day, models]) =>
      Object.values(models).map((sum) => [day, sum.model, sum.request_count, sum.total_tokens, dollars(sum.cost_usd)]),
    );
    fill($("#cost table"), rows);
  },

  async config() {
    $("#config textarea").value = (await call("api/config")).content;
  },

  async events() {
    listen();
  },
};

function show() {
  const name = token ? location.hash.slice(1) || "status" : "pair";
  const known = name in sections || name === "pair" ? name : "status";
  shown = known;
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== known;
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.hash === `#${known}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("#tabs").hidden = !token;
  if (known in sections) attempt(sections[known]);
}

// What changes by itself is shown anew, unless somebody is at work in it.
setInterval(() => {
  const table = $(`#${shown} table`);
  if (!["status", "cron"].includes(shown) || document.hidden || !token) return;
  if (table?.matches(":focus-within")) return;
  sections[shown]().catch((error) => notice(error.message));
}, REFRESH_MS);

// --- pairing ---------------------------------------------------------------------------------------------------------

function keep(value) {
  token = value;
  store.set(TOKEN, value === OPEN ? null : value);
  show();
}

function forget() {
  token = "";
  store.set(TOKEN, null);
  chat.close();
  show();
}

$("#pair form").addEventListener("submit", (event) => {
  event.preventDefault();
  const secret = new FormData(event.target).get("secret").trim();
  attempt(async () => {
    if (/^zc[l_]/.test(secret)) {
      token = secret;
      try {
        await call("api/status");
      } catch (error) {
        token = "";
        throw error;
      }
      return keep(secret);
    }
    const paired = await call("pair", { method: "POST", headers: { "X-Pairing-Code": secret } });
    event.target.reset();
    keep(paired.token);
    if (!paired.persisted) notice(paired.message);
  });
});

$("#leave").addEventListener("click", () => {
  const question = "Sign out? To come back you need the token or a new code. The conversation shown here is forgotten.";
  if (!confirm(question)) return;
  chat.clear();
  forget();
});

// --- chat ------------------------------------------------------------------------------------------------------------

function socketAddress() {
  const url = new URL(`${base}ws/chat`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return [url, token && token !== OPEN ? ["zeroclaw.v1", `bearer.${token}`] : []];
}

const chat = new Chat({
  address: socketAddress,
  allowed: async () => (await fetch(`${base}api/status`, { headers: authorization() })).status !== 401,
  refused: () => {
    forget();
    notice("The gateway does not know this browser any more. Pair it again.");
  },
  signedIn: () => token !== "",
  store,
  name: `gateway-chat:${base}`,
  markdown,
});

$("#chat form").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = new FormData(event.target).get("message").trim();
  if (!content) return;
  chat.say(content);
  event.target.reset();
});

$("#chat textarea").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
});

$("#stop").addEventListener("click", () => chat.stop());
$("#fresh").addEventListener("click", () => chat.clear());

// --- events ----------------------------------------------------------------------------------------------------------

let listening = false;
/** A name that no event has: what the gateway still keeps comes first. */
let lastEvent = "start";

/** Reads the stream by fetch: an EventSource cannot send the token. Goes on after the last event seen. */
async function listen() {
  if (listening) return;
  listening = true;
  while (token) {
    try {
      const response = await fetch(`${base}api/events`, { headers: { ...authorization(), "Last-Event-ID": lastEvent } });
      if (response.status === 401) break;
      notice("");
      await read(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {
      if (shown === "events") notice("The connection to the gateway is lost; trying again.");
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
  listening = false;
}

async function read(reader) {
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    parts.forEach(showEvent);
  }
}

function showEvent(part) {
  const field = (name) => part.split("\n").find((each) => each.startsWith(`${name}: `))?.slice(name.length + 2);
  const data = field("data");
  if (!data) return;
  const { type, timestamp, ...rest } = JSON.parse(data);
  if (type === "gap" && lastEvent === "start") return;
  lastEvent = field("id") ?? lastEvent;
  $("#quiet").hidden = true;
  const list = $("#events ol");
  list.prepend(element("li", type === "gap" ? "Some events are missing here." : `${time(timestamp)} ${type} ${JSON.stringify(rest)}`));
  while (list.children.length > EVENTS_SHOWN) list.lastChild.remove();
}

// --- forms -----------------------------------------------------------------------------------------------------------

function onSubmit(selector, action) {
  $(selector).addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => action(Object.fromEntries(new FormData(event.target)), event.target));
  });
}

onSubmit('[data-form="search"]', () => sections.memory());
onSubmit('[data-form="store"]', async (note, form) => {
  await call("api/memory", { method: "POST", json: note });
  form.reset();
  await sections.memory();
});
onSubmit("#cron form", async ({ tz, ...job }, form) => {
  await call("api/cron", { method: "POST", json: tz ? { ...job, tz } : job });
  form.reset();
  await sections.cron();
});
onSubmit("#config form", async ({ content }) => {
  const saved = await call("api/config", { method: "PUT", body: content });
  const later = saved.restart_required;
  notice(later.length ? `Saved. Takes effect after a restart: ${later.join(", ")}` : "Saved.");
});
$('[data-action="doctor"]').addEventListener("click", (event) => {
  event.target.disabled = true;
  $("#findings").replaceChildren(element("li", "Checking …"));
  attempt(async () => {
    try {
      const { results } = await call("api/doctor", { method: "POST" });
      const items = results.map((found) =>
        element("li", `${found.severity}: ${found.category}: ${found.message}`, { class: `severity-${found.severity}` }),
      );
      $("#findings").replaceChildren(...items);
    } catch (error) {
      $("#findings").replaceChildren();
      throw error;
    } finally {
      event.target.disabled = false;
    }
  });
});

addEventListener("hashchange", show);
// Another tab signed in or out.
addEventListener("storage", (event) => {
  if (event.key !== TOKEN || (event.newValue ?? "") === token || token === OPEN) return;
  token = event.newValue ?? "";
  if (!token) chat.close();
  show();
});
attempt(async () => {
  if (!token && (await fetch(`${base}api/status`)).ok) token = OPEN;
  show();
});
