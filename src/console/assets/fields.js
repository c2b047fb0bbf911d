// The form of an agent: what providers there are, reading and writing its fields, and showing what is wrong with them.

import { $, $$, h, say } from "./dom.js";
import { sentence } from "./api.js";

/** Fields of the API by their names in the form, with how their text is read. */
const text = (value) => value.trim();
const figure = (value) => (value.trim() === "" ? null : Number(value));
export const FIELDS = {
  name: text,
  provider: text,
  model: text,
  providerUrl: text,
  temperature: figure,
  maxTokens: figure,
  agentName: text,
  userName: text,
  timezone: text,
  communicationStyle: text,
  memoryBackend: text,
};

/** Makes the provider's models, key and address follow the provider. */
export function wire(form) {
  const provider = form.elements.provider;
  const follow = () => {
    const { models, keys, key, url } = provider.selectedOptions[0].dataset;
    $("#models").replaceChildren(...models.split(" ").map((value) => h("option", { value })));
    form.elements.model.placeholder = models.split(" ")[0];
    form.elements.providerUrl.placeholder = url;
    $("#key-source").hidden = !keys;
    if (keys) {
      $("#key-link").href = keys;
      $("#key-link").textContent = new URL(keys).host;
    }
    form.elements.apiKey.disabled = false;
    form.elements.apiKey.placeholder = key === "true" ? "" : "Not needed";
  };
  provider.addEventListener("change", follow);
  const zones = Intl.supportedValuesOf?.("timeZone") ?? [];
  $("#zones").replaceChildren(...["UTC", ...zones.filter((zone) => zone !== "UTC")].map((value) => h("option", { value })));
  form.addEventListener("input", (event) => unmark(event.target));
  follow();
  return follow;
}

/** What is in the form; empty fields are null. */
export function values(form) {
  const found = Object.fromEntries(Object.entries(FIELDS).filter(([name]) => form.elements[name]).map(([name, read]) => [name, form.elements[name].value === "" ? null : read(form.elements[name].value)]));
  for (const [name, value] of Object.entries(found)) if (value === "") found[name] = null;
  found.autoSave = form.elements.autoSave.checked;
  return found;
}

// --- channels --------------------------------------------------------------------------------------------------------

export function wireChannels(form) {
  for (const channel of $$("[data-channel]", form)) {
    const box = $("[data-switch]", channel);
    box.addEventListener("change", () => open(channel, box.checked));
  }
}

function open(channel, on) {
  $("[data-switch]", channel).checked = on;
  $(".inner", channel).hidden = !on;
}

/** Writes an agent's channels into the form. */
export function showChannels(form, channels) {
  for (const channel of $$("[data-channel]", form)) {
    const kept = channels?.[channel.dataset.channel];
    open(channel, Boolean(kept));
    for (const input of $$(".inner input", channel)) {
      const value = kept?.[input.name];
      input.value = Array.isArray(value) ? value.join(", ") : (value ?? "");
    }
  }
}

/** The channels that are switched on, as the API takes them. */
export function channels(form) {
  const found = {};
  for (const channel of $$("[data-channel]", form)) {
    if (!$("[data-switch]", channel).checked) continue;
    const fields = {};
    for (const { name, value } of $$(".inner input", channel)) {
      if (name === "allowedUsers") fields[name] = value.split(",").map((it) => it.trim()).filter(Boolean);
      else if (name === "botToken" || value.trim()) fields[name] = value.trim();
    }
    found[channel.dataset.channel] = fields;
  }
  return found;
}

// --- what is wrong ---------------------------------------------------------------------------------------------------

/** The input that a JSON pointer is about. */
function inputOf(form, pointer) {
  const parts = pointer.split("/").slice(1);
  const input = parts[0] === "channels" ? form.querySelector(`#${CSS.escape(`${parts[1]}-${parts[2]}`)}`) : form.elements.namedItem(parts[0]);
  return input?.id ? input : null;
}

export function unmark(input) {
  if (!input.id) return;
  input.removeAttribute("aria-invalid");
  const place = document.getElementById(`${input.id}-error`);
  if (place) say(place, "");
}

function mark(input, text) {
  input.setAttribute("aria-invalid", "true");
  const place = document.getElementById(`${input.id}-error`);
  if (!place) return;
  say(place, text);
  const known = (input.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean);
  if (!known.includes(place.id)) input.setAttribute("aria-describedby", [...known, place.id].join(" "));
  for (let up = input.parentElement; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
}

/** Shows a failure where it belongs: at its fields, or above the button. The first field gets the focus. */
export async function showProblem(form, problem, place = $("#problem")) {
  for (const input of $$('[aria-invalid="true"]', form)) unmark(input);
  say(place, "");
  if (problem === null) return;
  const rest = [];
  let first = null;
  for (const { pointer, parameter, detail } of problem.errors ?? []) {
    const input = pointer ? inputOf(form, pointer) : null;
    if (input) {
      mark(input, `${detail[0].toUpperCase()}${detail.slice(1)}.`);
      first ??= input;
    } else rest.push(`${pointer ?? parameter ?? ""} ${detail}`.trim());
  }
  if (first) {
    first.focus();
    say(place, rest.length ? `Also: ${rest.join("; ")}.` : "Some fields need another look.");
  } else say(place, await sentence(problem));
}

/** What the browser itself knows to be wrong. Answers whether all is well. */
export function check(form) {
  let first = null;
  for (const input of form.elements) {
    if (!input.willValidate || !input.id) continue;
    unmark(input);
    if (input.checkValidity()) continue;
    mark(input, input.validationMessage);
    first ??= input;
  }
  first?.focus();
  return !first;
}
