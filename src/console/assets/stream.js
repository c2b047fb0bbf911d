// Server-sent events by fetch: unlike an EventSource it tells why a stream ended, and can send a body.

import { Problem, request } from "./api.js";

/** Reads one stream of events to its end: yields {event, data, id}. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value.replaceAll("\r", "");
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const event = parse(part);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(part) {
  let event = "message";
  let id = null;
  const data = [];
  for (const line of part.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const value = line.slice(at + 1).replace(/^ /, "");
    if (line.startsWith("event:")) event = value;
    else if (line.startsWith("id:")) id = value;
    else if (line.startsWith("data:")) data.push(value);
  }
  if (!data.length) return null;
  try {
    return { event, id, data: JSON.parse(data.join("\n")) };
  } catch {
    return { event, id, data: data.join("\n") };
  }
}

const visible = () => !document.hidden;

/** Waits for a time, or until the page is looked at again or the network is back. */
function pause(ms) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      document.removeEventListener("visibilitychange", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    document.addEventListener("visibilitychange", done);
  });
}

/**
 * Follows a stream for as long as the page is open. It goes on after the last event that came, heals by itself, and is
 * closed while nobody looks: browsers have few connections for all the tabs of a site.
 *
 * `on` gets each event, `opened` runs at each (re)connection: what has no ids is to be read anew there.
 */
export async function follow(path, { on, opened = () => {}, gone = () => {} }) {
  let last = null;
  let failures = 0;
  for (;;) {
    while (!visible()) await pause(60_000);
    const ending = new AbortController();
    const hide = () => !visible() && ending.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const response = await request(typeof path === "function" ? path() : path, { headers, signal: ending.signal });
      failures = 0;
      opened();
      for await (const event of events(response)) {
        last = event.id ?? last;
        on(event);
      }
    } catch (error) {
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) return;
      if (error instanceof Problem && error.status === 404) return gone();
      if (!(error instanceof Problem) && error.name !== "AbortError" && !(error instanceof TypeError)) console.error(error);
    } finally {
      document.removeEventListener("visibilitychange", hide);
      ending.abort();
    }
    if (!visible()) continue;
    failures += 1;
    if (failures > 1) dispatchEvent(new CustomEvent("service-away"));
    await pause(Math.min(10_000, 250 * 2 ** failures) * (0.75 + Math.random() / 2));
  }
}
