// The dashboard: plain browser JavaScript, no build step. What comes from the gateway is only ever put in as text.

const base = location.pathname.replace(/[^/]*$/, "");
const TOKEN = "gateway-token";
/** In place of a token where none is needed: pairing is off, or a proxy adds the token on the way. */
const OPEN = "open";
const EVENTS_SHOWN = 200;
const $ = (selector, from = document) => from.querySelector(selector);
let token = sessionStorage.getItem(TOKEN) ?? "";

// --- talking to the gateway ------------------------------------------------------------------------------------------

const authorization = () => (token && token !== OPEN ? { Authorization: `Bearer ${token}` } : {});

async function call(path, options = {}) {
  const headers = { ...authorization(), ...options.headers };
  if (options.json !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(options.json);
  }
  const response = await fetch(base + path, { ...options, headers });
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) forget();
  if (!response.ok) throw new Error(body.error ?? `The gateway answered ${response.status}`);
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

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text ?? "";
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function row(cells) {
  const made = document.createElement("tr");
  for (const cell of cells) {
    const td = document.createElement("td");
    td.append(cell instanceof Node ? cell : String(cell ?? ""));
    made.append(td);
  }
  return made;
}

function button(text, action) {
  const made = element("button", text, { type: "button" });
  made.addEventListener("click", () => attempt(action));
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
      ["Temperature", status.temperature],
      ["Memory", status.memory_backend],
      ["Channels", channels.join(", ") || "none"],
      ["Up for", `${status.uptime_seconds} s`],
    ]);
    const parts = Object.entries(status.health.components);
    $("#status tbody").replaceChildren(
      ...parts.map(([name, part]) => row([name, part.status, part.restart_count, part.last_error])),
    );
  },

  async chat() {
    connect();
  },

  async memory() {
    const query = new FormData($('[data-form="search"]')).get("query");
    const { entries } = await call(`api/memory${query ? `?query=${encodeURIComponent(query)}` : ""}`);
    const remove = (key) => async () => {
      await call(`api/memory/${encodeURIComponent(key)}`, { method: "DELETE" });
      await sections.memory();
    };
    $("#memory tbody").replaceChildren(
      ...entries.map((entry) =>
        row([entry.key, entry.content, entry.category, time(entry.timestamp), button("Forget", remove(entry.key))]),
      ),
    );
  },

  async cron() {
    const { jobs } = await call("api/cron");
    const remove = (id) => async () => {
      await call(`api/cron/${encodeURIComponent(id)}`, { method: "DELETE" });
      await sections.cron();
    };
    $("#cron tbody").replaceChildren(
      ...jobs.map((job) =>
        row([
          job.command,
          `${job.schedule} (${job.tz})`,
          time(job.next_run),
          job.last_run ? `${time(job.last_run)}: ${job.last_status}` : "",
          job.last_output,
          button("Remove", remove(job.id)),
        ]),
      ),
    );
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
    $("#cost tbody").replaceChildren(
      ...days.flatMap(([day, models]) =>
        Object.values(models).map((sum) =>
          row([day, sum.model, sum.request_count, sum.total_tokens, dollars(sum.cost_usd)]),
        ),
      ),
    );
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
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== known;
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.hash === `#${known}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("#tabs").hidden = !token;
  if (known in sections) attempt(sections[known]);
}

// --- pairing ---------------------------------------------------------------------------------------------------------

function keep(value) {
  token = value;
  sessionStorage.setItem(TOKEN, value);
  show();
}

function forget() {
  token = "";
  sessionStorage.removeItem(TOKEN);
  socket?.close();
  show();
}

$("#pair form").addEventListener("submit", (event) => {
  event.preventDefault();
  const secret = new FormData(event.target).get("secret").trim();
  attempt(async () => {
    if (/^zc[l_]/.test(secret)) {
      token = secret;
      await call("api/status");
      return keep(secret);
    }
    const paired = await call("pair", { method: "POST", headers: { "X-Pairing-Code": secret } });
    event.target.reset();
    keep(paired.token);
    if (!paired.persisted) notice(paired.message);
  });
});

$("#leave").addEventListener("click", forget);

// --- chat ------------------------------------------------------------------------------------------------------------

let socket;
let answer;

function connect() {
  if (socket && socket.readyState <= WebSocket.OPEN) return;
  const url = new URL(`${base}ws/chat`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url, token === OPEN ? [] : ["zeroclaw.v1", `bearer.${token}`]);
  socket.addEventListener("message", (event) => hear(JSON.parse(event.data)));
  socket.addEventListener("close", () => (answer = undefined));
}

function line(kind, text) {
  const made = element("p", text, { class: kind });
  const log = $("#log");
  log.append(made);
  log.scrollTop = log.scrollHeight;
  return made;
}

function hear(message) {
  switch (message.type) {
    case "chunk":
      answer ??= line("agent", "");
      answer.textContent += message.content;
      $("#log").scrollTop = $("#log").scrollHeight;
      break;
    case "tool_call":
      answer = undefined;
      line("tool", `${message.name} ${JSON.stringify(message.args)}`);
      break;
    case "tool_result":
      line("tool", `→ ${message.output}`);
      break;
    case "done":
      if (!answer) line("agent", message.full_response);
      answer = undefined;
      break;
    case "error":
      answer = undefined;
      line("error", message.message);
      break;
  }
}

$("#chat form").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = new FormData(event.target).get("message");
  connect();
  const send = () => socket.send(JSON.stringify({ type: "message", content }));
  if (socket.readyState === WebSocket.OPEN) send();
  else socket.addEventListener("open", send, { once: true });
  line("user", content);
  event.target.reset();
});

$("#chat textarea").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
});

// --- events ----------------------------------------------------------------------------------------------------------

let listening = false;
let lastEvent;

/** Reads the stream by fetch: an EventSource cannot send the token. Goes on after the last event seen. */
async function listen() {
  if (listening) return;
  listening = true;
  while (token) {
    try {
      const headers = authorization();
      if (lastEvent) headers["Last-Event-ID"] = lastEvent;
      const response = await fetch(`${base}api/events`, { headers });
      if (response.status === 401) break;
      await read(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {
      // The connection broke; the next turn takes it up again.
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
  lastEvent = field("id") ?? lastEvent;
  const { type, timestamp, ...rest } = JSON.parse(data);
  const list = $("#events ol");
  list.prepend(element("li", `${time(timestamp)} ${type} ${JSON.stringify(rest)}`));
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
onSubmit("#cron form", async (job, form) => {
  await call("api/cron", { method: "POST", json: job });
  form.reset();
  await sections.cron();
});
onSubmit("#config form", async ({ content }) => {
  const saved = await call("api/config", { method: "PUT", body: content });
  const later = saved.restart_required;
  notice(later.length ? `Saved. Takes effect after a restart: ${later.join(", ")}` : "Saved.");
});
$('[data-action="doctor"]').addEventListener("click", () =>
  attempt(async () => {
    const { results } = await call("api/doctor", { method: "POST" });
    $("#findings").replaceChildren(
      ...results.map((found) =>
        element("li", `${found.severity}: ${found.category}: ${found.message}`, { class: `severity-${found.severity}` }),
      ),
    );
  }),
);

addEventListener("hashchange", show);
attempt(async () => {
  if (!token && (await fetch(`${base}api/status`)).ok) token = OPEN;
  show();
});
