// The conversation: what was said is kept in the browser, so that it is there after a reload; what was not answered is
// shown as such and never sent a second time without being asked.
//
// A message of the user is "waiting" (not sent yet), "sent" (the answer is on its way), "answered", or "lost" (the
// connection broke in between: the gateway may have worked on it).

import { element } from "./dom.js";

/** Kept in the browser: messages, and their characters. */
const KEPT = 200;
const KEPT_CHARACTERS = 400_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const $ = (selector) => document.querySelector(selector);

export class Chat {
  constructor(options) {
    Object.assign(this, options);
    this.pause = FIRST_PAUSE_MS;
    this.log = this.load();
    for (const entry of this.log) {
      if (entry.state === "sent") entry.state = "lost";
      this.draw(entry);
    }
    setInterval(() => this.tick(), 1000);
    addEventListener("online", () => this.connect());
    // Leaving in the middle of an answer ends it.
    addEventListener("beforeunload", (event) => {
      if (this.pending()) event.preventDefault();
    });
  }

  // --- what was said ---

  load() {
    try {
      const kept = JSON.parse(this.store.get(this.name) ?? "[]");
      return Array.isArray(kept) ? kept.filter((entry) => typeof entry?.text === "string") : [];
    } catch {
      return [];
    }
  }

  save() {
    let room = KEPT_CHARACTERS;
    const kept = this.log.slice(-KEPT).reverse();
    const fitting = kept.filter((entry) => (room -= entry.text.length) > 0).reverse();
    this.store.set(this.name, JSON.stringify(fitting, ["role", "text", "state", "error"]));
  }

  add(role, text, state) {
    const entry = { role, text, state };
    this.log.push(entry);
    this.draw(entry);
    this.save();
    return entry;
  }

  mark(entry, state, error) {
    entry.state = state;
    entry.error = error;
    this.draw(entry);
    this.save();
  }

  clear() {
    this.stop();
    this.log = [];
    this.answer = undefined;
    $("#log").replaceChildren();
    this.store.set(this.name, null);
    // The gateway's side of the conversation ends with its socket.
    this.socket?.close();
  }

  pending() {
    return this.log.find((entry) => entry.role === "user" && entry.state === "sent");
  }

  // --- sending ---

  say(text) {
    this.add("user", text, "waiting");
    this.connect();
    this.next();
  }

  /** Sends the next message that waits, unless one is being answered. */
  next() {
    if (this.socket?.readyState !== WebSocket.OPEN || this.pending()) return;
    const entry = this.log.find((each) => each.role === "user" && each.state === "waiting");
    if (!entry) return;
    this.began = Date.now();
    this.mark(entry, "sent");
    this.socket.send(JSON.stringify({ type: "message", content: entry.text }));
    this.tick();
  }

  stop() {
    for (const entry of this.log.filter((each) => each.state === "waiting")) this.mark(entry, "stopped");
    if (this.pending() && this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "stop" }));
  }

  // --- the connection ---

  connect() {
    clearTimeout(this.timer);
    if (!this.signedIn() || (this.socket && this.socket.readyState <= WebSocket.OPEN)) return;
    const socket = new WebSocket(...this.address());
    this.socket = socket;
    socket.addEventListener("open", () => {
      this.pause = FIRST_PAUSE_MS;
      this.said("");
      socket.send(JSON.stringify({ type: "history", messages: this.history() }));
      this.next();
    });
    socket.addEventListener("message", (event) => this.hear(JSON.parse(event.data)));
    socket.addEventListener("close", () => this.lost(socket));
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = undefined;
    socket?.close();
    this.said("");
  }

  /** What was said and answered, for a gateway that was restarted or a page that was loaded anew. */
  history() {
    const turns = [];
    let asked;
    for (const entry of this.log) {
      if (entry.role === "user") asked = entry.state === "answered" ? entry : undefined;
      if (entry.role !== "agent" || !asked) continue;
      turns.push({ role: "user", content: asked.text }, { role: "assistant", content: entry.text });
      asked = undefined;
    }
    return turns.slice(-20);
  }

  async lost(socket) {
    if (socket !== this.socket) return;
    const pending = this.pending();
    if (pending) this.mark(pending, "lost");
    this.answer = undefined;
    this.tick();
    if (!this.signedIn()) return;
    this.said("Connection lost, trying again …");
    const allowed = await this.allowed().catch(() => true);
    if (!allowed) return this.refused();
    this.timer = setTimeout(() => this.connect(), this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }

  said(text) {
    $("#connection").textContent = text;
  }

  // --- what the gateway says ---

  hear(message) {
    const pending = this.pending();
    switch (message.type) {
      case "chunk":
        this.answer ??= this.add("agent", "");
        this.answer.text += message.content;
        this.draw(this.answer);
        break;
      case "tool_call":
        this.answer = undefined;
        this.add("tool", `${message.name} ${JSON.stringify(message.args)}`);
        break;
      case "tool_result":
        this.add("tool", `→ ${message.output}`);
        break;
      case "done":
        if (!this.answer) this.add("agent", message.full_response);
        this.ended(pending, "answered");
        break;
      case "stopped":
        this.ended(pending, "stopped");
        break;
      case "error":
        this.ended(pending, "failed", message.message);
        break;
    }
  }

  ended(pending, state, error) {
    this.answer = undefined;
    if (pending) this.mark(pending, state, error);
    this.save();
    this.tick();
    this.next();
  }

  // --- drawing ---

  draw(entry) {
    const log = $("#log");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    if (!entry.node) {
      entry.node = document.createElement("div");
      log.append(entry.node);
    }
    entry.node.className = entry.role;
    const text = element("div", entry.role === "agent" ? "" : entry.text, { class: "text" });
    if (entry.role === "agent") text.append(this.markdown(entry.text));
    const who = { user: "You", agent: "Agent" }[entry.role];
    entry.node.replaceChildren(...(who ? [element("div", who, { class: "who" })] : []), text, ...this.state(entry));
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  /** What became of a message, and what can be done about it. */
  state(entry) {
    const words = {
      waiting: "Waiting to be sent.",
      lost: "The connection broke before the answer was complete.",
      stopped: "Stopped.",
      failed: entry.error ?? "There was no answer.",
    }[entry.state];
    if (!words) return [];
    const line = element("div", `${words} `, { class: entry.state === "failed" ? "state error" : "state" });
    if (entry.state !== "waiting") {
      const again = element("button", "Send again", { type: "button" });
      again.addEventListener("click", () => {
        this.mark(entry, undefined);
        this.say(entry.text);
      });
      line.append(again);
    }
    return [line];
  }

  /** Shows that there is work going on, and for how long. */
  tick() {
    const pending = this.pending();
    $("#working").hidden = !pending;
    if (!pending) return;
    const seconds = Math.floor((Date.now() - this.began) / 1000);
    $("#elapsed").textContent = this.answer ? `Answering, ${seconds} s` : `Thinking, ${seconds} s`;
  }
}
