// Building the page. Whatever comes from users, agents or models is only ever put in as text.

export const $ = (selector, from = document) => from.querySelector(selector);
export const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

/** Makes an element. Functions among the attributes are listeners; null, undefined and false are left out. */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  put(made, ...children);
  return made;
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  put(made, ...children);
  return made;
}

function put(into, ...children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    into.append(child instanceof Node ? child : String(child));
  }
}

/** Replaces what is in an element, which by that has loaded. */
export function fill(into, ...children) {
  into.replaceChildren();
  into.removeAttribute("aria-busy");
  put(into, ...children);
  return into;
}

/** Shows a text, or hides the element where there is none. */
export function say(element, text) {
  element.hidden = !text;
  element.textContent = text ?? "";
}

/** Text without what terminals take as colours and movements. */
export const plain = (text) => String(text).replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "");

// --- times and sizes -------------------------------------------------------------------------------------------------

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["day", 86_400], ["hour", 3600], ["minute", 60]];

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** Milliseconds as people read them. */
export const took = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : span(ms / 1000));

function ago(date) {
  const seconds = (date - Date.now()) / 1000;
  for (const [unit, size] of UNITS) if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  return seconds > 5 ? `in ${Math.round(seconds)} s` : "just now";
}

export const absolute = (text) => new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const clock = (text) => new Date(text).toLocaleTimeString(undefined, { hour12: false });

/** A moment in the reader's zone, as "5 minutes ago" with the exact time on hover; "never" where there is none. */
export function when(text, never = "never") {
  if (!text) return h("span", { class: "hint" }, never);
  return h("time", { datetime: text, title: absolute(text), "data-ago": "" }, ago(new Date(text)));
}

setInterval(() => {
  for (const time of $$("time[data-ago]")) {
    const text = ago(new Date(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}, 10_000);

export const number = (value, digits = 0) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString(undefined, { maximumFractionDigits: digits, minimumFractionDigits: digits });

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let left = value;
  while (left >= 1024 && at < units.length - 1) [left, at] = [left / 1024, at + 1];
  return `${number(left, at && left < 10 ? 1 : 0)} ${units[at]}`;
}

/** Pairs of name and value in a definition list. */
export const facts = (list, entries) =>
  fill(list, entries.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

// --- asking and telling ----------------------------------------------------------------------------------------------

/** Says something that passes by itself. */
export function toast(text, kind = "") {
  const made = h("p", { class: `toast ${kind}` }, h("span", {}, text), h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => made.remove() }, "×"));
  const all = $("#toasts");
  all.append(made);
  while (all.children.length > 4) all.firstChild.remove();
  if (kind !== "bad") setTimeout(() => made.remove(), 8000);
}

/** Asks before something that matters; with `type` the word has to be typed. Answers true or false. */
export function ask({ title, body, action, type = null, danger = true }) {
  return new Promise((resolve) => {
    const typed = type ? h("input", { id: "typed", autocomplete: "off", spellcheck: "false" }) : null;
    const go = h("button", { class: danger ? "danger" : "primary", value: "yes", disabled: Boolean(type) }, action);
    typed?.addEventListener("input", () => (go.disabled = typed.value.trim() !== type));
    const dialog = h(
      "dialog",
      { "aria-labelledby": "dialog-title" },
      h("form", { method: "dialog" }, [
        h("h2", { id: "dialog-title" }, title),
        h("div", {}, body instanceof Node || Array.isArray(body) ? body : h("p", {}, body)),
        type ? h("div", { class: "field" }, h("label", { for: "typed" }, "Type ", h("strong", {}, type), " to go on"), typed) : null,
        h("div", { class: "buttons" }, go, h("button", { value: "no", autofocus: !type, formnovalidate: true }, "Cancel")),
      ]),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
    typed?.focus();
  });
}

/** Runs what a button or a form does: not twice at once, and visibly under way. */
export async function busy(control, action) {
  if (control.getAttribute("aria-disabled") === "true") return;
  control.setAttribute("aria-disabled", "true");
  try {
    return await action();
  } finally {
    control.removeAttribute("aria-disabled");
  }
}

/** Copies a text, and says so. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast("The browser does not let the page copy. Select the text and copy it yourself.", "bad");
  }
}
