// A conversation with an agent: answers as they come, kept over a reload, and a word about what the agent does meanwhile.

import { $, ask, busy, clock, fill, h } from "./dom.js";
import { agentId, call, Problem, request, sentence } from "./api.js";
import { events } from "./stream.js";
import { attempt } from "./shell.js";
import { agent, page, refresh, watch } from "./agent.js";
import { markdown } from "./markdown.js";
import { word } from "./status.js";

const STORE = `chat:${agentId}`;
/** What a tab remembers of a conversation; older messages are the agent's to tell. */
const KEPT = 200;
/** How long a message may wait for an agent that comes up, in seconds. */
const HOLD = 120;

let session = "";
/** {role: "user" | "agent", text, time, state?: "waiting" | "streaming" | "failed" | "stopped", note?, key?} */
let entries = [];
let sending = null;
let sessions = [];

// --- what survives a reload ------------------------------------------------------------------------------------------

const memory = () => {
  try {
    return JSON.parse(sessionStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
};

function keep() {
  try {
    const all = memory().all ?? {};
    all[session] = entries.slice(-KEPT);
    if (!entries.length) delete all[session];
    sessionStorage.setItem(STORE, JSON.stringify({ session, all }));
  } catch {
    // A full or forbidden store: the conversation lives as long as the page.
  }
}

const fresh = () => `console-${[...crypto.getRandomValues(new Uint8Array(9))].map((it) => it.toString(36).padStart(2, "0")).join("")}`;

// --- conversations ---------------------------------------------------------------------------------------------------

/** Where the agent keeps conversations; null where it cannot tell. */
async function kept(path = "") {
  // While it does not run it cannot be asked; nobody should wait for that here.
  if (agent.record.status !== "RUNNING") return null;
  try {
    return await call(`/api/agents/${agentId}/sessions${path}`, { headers: { Prefer: "wait=0" } });
  } catch (error) {
    if (error.status === 401) throw error;
    return null;
  }
}

async function listSessions() {
  sessions = [];
  let answer;
  do {
    answer = await kept(`?limit=200${answer ? `&cursor=${answer.nextCursor}` : ""}`);
    sessions.push(...(answer?.data ?? []).map((it) => ({ id: it.id, at: it.lastActivity })));
  } while (answer?.nextCursor);
  const local = Object.keys(memory().all ?? {}).filter((id) => !sessions.some((it) => it.id === id));
  const all = [...sessions, ...local.map((id) => ({ id, at: memory().all[id].at(-1)?.time ?? null }))];
  if (!all.some((it) => it.id === session)) all.unshift({ id: session, at: null });
  all.sort((a, b) => new Date(b.at ?? Date.now()) - new Date(a.at ?? Date.now()));
  const title = ({ id, at }) => {
    const first = id === session ? entries.find((it) => it.role === "user")?.text : memory().all?.[id]?.find((it) => it.role === "user")?.text;
    const name = first ? first.slice(0, 40) : at ? (id.startsWith("console-") ? "Conversation" : id) : "New conversation";
    return at ? `${name}, ${new Date(at).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" })}` : name;
  };
  fill($("#conversation"), all.map((it) => h("option", { value: it.id, selected: it.id === session }, title(it))));
}

/** Shows a conversation: as the agent has it, else as this tab remembers it. */
async function open(id) {
  session = id;
  entries = (memory().all?.[id] ?? []).map((it) => (it.state === "waiting" || it.state === "streaming" ? { ...it, state: "left" } : it));
  show();
  const answer = sessions.some((it) => it.id === id) || entries.length ? await kept(`/${encodeURIComponent(id)}`) : null;
  const said = answer?.messages;
  if (said?.length && id === session && !sending) {
    const known = said.map((it) => ({ role: it.role === "user" ? "user" : "agent", text: it.content, time: it.time }));
    // What was on the way when the page was left, and is not in the agent's own record.
    const lost = entries.filter((it) => it.role === "user" && it.state && !known.some((other) => other.role === "user" && other.text === it.text));
    entries = [...known, ...lost];
  }
  for (const it of entries.filter((entry) => entry.state === "left")) {
    it.state = "failed";
    it.note = "The page was left before the answer came.";
  }
  keep();
  show();
}

// --- showing ---------------------------------------------------------------------------------------------------------

let wanted = false;
function show() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    draw();
  });
}

function draw() {
  const log = $("#log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  // What is finished stays as it is; an answer that grows is written anew.
  const drawn = [...log.children];
  entries.forEach((entry, at) => {
    const stamp = `${entry.role}|${entry.text.length}|${entry.text.slice(0, 40)}|${entry.state ?? ""}|${entry.note ?? ""}`;
    if (drawn[at]?.dataset.stamp === stamp) return;
    const made = bubble(entry, stamp);
    if (drawn[at]) drawn[at].replaceWith(made);
    else log.append(made);
  });
  while (log.children.length > Math.max(entries.length, 0)) log.lastChild.remove();
  if (!entries.length) fill(log, h("p", { class: "empty" }, `Say something to ${agent.record.agentName}.`));
  if (atEnd || sending) log.scrollTop = log.scrollHeight;
}

function bubble(entry, stamp) {
  const who = entry.role === "user" ? "You" : agent.record.agentName;
  return h(
    "article",
    { class: `said ${entry.role} ${entry.state ?? ""}`, "data-stamp": stamp, "aria-label": who },
    h("p", { class: "by" }, h("strong", {}, who), entry.time ? h("time", { datetime: entry.time }, ` ${clock(entry.time)}`) : null),
    entry.role === "user" ? h("div", { class: "text" }, entry.text) : h("div", { class: "text markdown" }, markdown(entry.text), entry.state === "streaming" ? h("span", { class: "caret", "aria-hidden": "true" }) : null),
    entry.note ? h("p", { class: "note" }, entry.note, " ", entry.role === "user" ? h("button", { type: "button", class: "quiet", onclick: () => again(entry) }, "Send it again") : null) : null,
  );
}

/** A word about the agent, and what it means for messages. */
function state() {
  const status = agent.record.status;
  const place = $("#state");
  const waits = sending && !sending.answering;
  const texts = {
    RUNNING: waits ? `${agent.record.agentName} is thinking …` : "",
    PENDING: waits ? "The agent is being made. Your message is held, and goes to it as soon as it is ready." : "The agent is being made. Messages are held until it is ready.",
    STARTING: waits ? "The agent is starting. Your message is held, and goes to it as soon as it is ready." : "The agent is starting. Messages are held until it is ready.",
    STOPPING: "The agent is ending. If it comes back, your message goes to it.",
    STOPPED: "The agent is stopped. Start it to talk to it.",
    ERROR: "The agent failed, and nothing is tried any more. The overview says why; start it to try again.",
  };
  const text = texts[status] ?? word(status);
  if (place.textContent !== text) place.textContent = text;
  $("#send").disabled = Boolean(sending) || ["STOPPED", "ERROR"].includes(status);
  $("#stop").hidden = !sending;
}

// --- sending ---------------------------------------------------------------------------------------------------------

function again(entry) {
  entries = entries.filter((it) => it !== entry);
  send(entry.text);
}

async function send(text) {
  if (sending) return;
  const mine = { role: "user", text, time: new Date().toISOString(), state: "waiting" };
  const answer = { role: "agent", text: "", time: null, state: "streaming" };
  entries.push(mine);
  sending = { stop: new AbortController(), answering: false };
  const said = session;
  keep();
  show();
  state();
  const piece = (more) => {
    if (!sending.answering) {
      sending.answering = true;
      delete mine.state;
      answer.time = new Date().toISOString();
      if (said === session) entries.push(answer);
      state();
    }
    answer.text += more;
    if (said === session) show();
  };
  try {
    await converse({ text, session: said, signal: sending.stop.signal, piece, whole: (all) => (answer.text === all ? null : piece((answer.text = "") || all)) });
    delete answer.state;
    delete mine.state;
    if (!answer.text) answer.text = "(no text)";
  } catch (error) {
    await broke(error, mine, answer);
  } finally {
    sending = null;
    if (said === session) {
      keep();
      show();
    }
    state();
    listSessions();
  }
}

async function broke(error, mine, answer) {
  if (error.name === "AbortError") {
    if (answer.text) Object.assign(answer, { state: "stopped", note: "Stopped." });
    else Object.assign(mine, { state: "stopped", note: "Stopped before an answer came." });
    return;
  }
  // A connection that breaks in the middle is no problem of the API's.
  const known = error instanceof Problem ? error : new Problem(0, { code: "offline", detail: "The connection broke before the answer was complete." });
  const note = await sentence(known);
  if (answer.text) Object.assign(answer, { state: "failed", note });
  else Object.assign(mine, { state: "failed", note });
  refresh().catch(() => {});
}

/** One message and its answer: in pieces where the service sends them, else whole. */
async function converse({ text, session: id, signal, piece, whole }) {
  const response = await request(`/api/agents/${agentId}/message`, {
    method: "POST",
    json: { message: text, session: id },
    headers: { Accept: "text/event-stream, application/json", Prefer: `wait=${HOLD}` },
    signal,
  });
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    const body = await response.json();
    return whole(body.response ?? JSON.stringify(body));
  }
  for await (const { event, data } of events(response)) {
    if (event === "delta") piece(data.text);
    else if (event === "error") throw new Problem(data.status ?? 502, data);
    else if (event === "done") return whole(data.response);
  }
  throw new Problem(0, { code: "offline", detail: "The connection broke before the answer was complete." });
}

// --- the page --------------------------------------------------------------------------------------------------------

page(async () => {
  const remembered = memory();
  await open(remembered.session ?? fresh());
  await listSessions();
  watch(state);
  const form = $("#say");
  const box = form.elements.message;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (!text || sending || $("#send").disabled) return;
    box.value = "";
    send(text);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  $("#stop").addEventListener("click", () => sending?.stop.abort());
  $("#fresh").addEventListener("click", async () => {
    await open(fresh());
    await listSessions();
    box.focus();
  });
  $("#conversation").addEventListener("change", (event) => open(event.target.value).then(listSessions));
  $("#forget").addEventListener("click", (event) => busy(event.currentTarget, forget));
  box.disabled = false;
  if (matchMedia("(pointer: fine)").matches) box.focus();
});

async function forget() {
  const sure = await ask({ title: "Delete this conversation?", body: "The agent forgets what was said in it. What it noted in its memory stays.", action: "Delete" });
  if (!sure) return;
  if (sessions.some((it) => it.id === session)) {
    const gone = await attempt(async () => (await call(`/api/agents/${agentId}/sessions/${encodeURIComponent(session)}`, { method: "DELETE" })) ?? true);
    if (!gone) return;
  }
  entries = [];
  keep();
  await open(fresh());
  await listSessions();
}
