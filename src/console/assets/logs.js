// An agent's log as it is written.

import { $, busy, clock, h, plain } from "./dom.js";
import { agentId, query, request } from "./api.js";
import { follow } from "./stream.js";
import { attempt } from "./shell.js";
import { agent, page } from "./agent.js";

/** Lines on the page; older ones are in the download. */
const KEPT = 5000;
const TAIL = 500;

const waiting = [];
let paused = false;
let wanted = false;
let count = 0;

page(async () => {
  const lines = $("#lines");
  $("#find").addEventListener("input", filter);
  $("#wrap").addEventListener("change", (event) => lines.classList.toggle("nowrap", !event.target.checked));
  $("#pause").addEventListener("click", (event) => {
    paused = !paused;
    event.target.setAttribute("aria-pressed", String(paused));
    event.target.textContent = paused ? "Go on" : "Pause";
    soon();
  });
  $("#download").addEventListener("click", (event) => busy(event.currentTarget, () => attempt(download)));
  setTimeout(() => ($("#empty").hidden = count > 0), 1500);
  follow(() => query(`/api/agents/${agentId}/logs`, { follow: true, tail: TAIL }), {
    on: ({ event, data }) => {
      if (event === "line") waiting.push(data);
      if (event === "restart") waiting.push({ mark: `The agent was started anew, attempt ${data.attempt}.` });
      if (waiting.length > KEPT) waiting.splice(0, waiting.length - KEPT);
      soon();
    },
  });
});

function soon() {
  if (wanted) return;
  wanted = true;
  setTimeout(() => {
    wanted = false;
    write();
  }, 60);
}

function write() {
  const lines = $("#lines");
  if (paused) return tell();
  const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 60;
  const words = $("#find").value.toLowerCase();
  lines.append(...waiting.splice(0).map((line) => row(line, words)));
  while (lines.children.length > KEPT) lines.firstChild.remove();
  count = lines.children.length;
  $("#empty").hidden = count > 0;
  if (atEnd) lines.scrollTop = lines.scrollHeight;
  tell();
}

function row(line, words) {
  if (line.mark) return h("p", { class: "mark" }, line.mark);
  const text = plain(line.text);
  const made = h("p", { class: line.stream }, h("time", { datetime: line.time, title: line.time }, clock(line.time)), h("span", {}, text));
  made.hidden = words !== "" && !text.toLowerCase().includes(words);
  return made;
}

function filter() {
  const words = $("#find").value.toLowerCase();
  for (const made of $("#lines").children) made.hidden = words !== "" && !made.textContent.toLowerCase().includes(words);
  tell();
}

function tell() {
  const shown = [...$("#lines").children].filter((it) => !it.hidden).length;
  const all = $("#lines").children.length;
  const found = shown === all ? `${all} lines` : `${shown} of ${all} lines`;
  const text = paused && waiting.length ? `${found}, ${waiting.length} more since the pause` : found;
  if ($("#count").textContent !== text) $("#count").textContent = text;
}

async function download() {
  const response = await request(`/api/agents/${agentId}/logs?tail=5000`, { headers: { Accept: "text/plain" } });
  const address = URL.createObjectURL(await response.blob());
  const link = h("a", { href: address, download: `${agent.record.slug}.log` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
