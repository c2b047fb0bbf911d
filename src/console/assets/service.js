// How the service does, for administrators.

import { $, bytes, facts, fill, h, number } from "./dom.js";
import { call } from "./api.js";
import { failed, start } from "./shell.js";
import { past } from "./figures.js";
import { word } from "./status.js";
import { empty } from "./table.js";

const REFRESH_MS = 5000;
/** Figures over time are of whole minutes. */
const FIGURES_MS = 60_000;
const yes = (value) => (value ? "yes" : "no");

start(async () => {
  const all = () => Promise.all([health(), runtime()]);
  await Promise.all([all(), figures()]);
  $("#range").addEventListener("change", figures);
  setInterval(() => document.hidden || all(), REFRESH_MS);
  setInterval(() => document.hidden || figures(), FIGURES_MS);
});

const figures = () =>
  part($("#figures"), async () => {
    const plots = (await past("/api/admin/usage", $("#range").value)).filter(Boolean);
    return plots.length ? [h("div", { class: "plots" }, plots)] : [empty("Nothing was measured in this time.", "Figures are written each minute while agents run, and kept for thirty days.")];
  });

async function part(place, read) {
  try {
    fill(place, ...(await read()));
  } catch (error) {
    if (error.status !== 401) await failed(place, error);
  }
}

const health = () =>
  part($("#health"), async () => {
    const { status, details: it } = await call("/readyz?verbose").catch((error) => (error.body?.details ? error.body : Promise.reject(error)));
    const list = facts(h("dl"), [
      ["Ready", h("span", { class: `badge ${status === "ready" ? "running" : "error"}` }, h("span", { class: "dot", "aria-hidden": "true" }), status)],
      ["Version", it.version],
      ["Store", `${it.store.writable ? "writable" : "cannot be written"}, ${bytes(it.store.bytes)}, ${number(it.store.queued)} writes waiting`],
      ["Actors", it.actors ? "answer" : "do not answer"],
      ...Object.entries(it.agents).map(([name, count]) => [`Agents ${word(name).toLowerCase()}`, number(count)]),
    ]);
    return [list];
  });

const runtime = () =>
  part($("#runtime"), async () => {
    const it = await call("/api/admin/runtime");
    const list = facts(h("dl"), [
      ["Runtime", it.name],
      ["Answers", it.problem ? `no: ${it.problem}` : yes(it.reachable)],
      ["Limits processor time", yes(it.enforcesCpu)],
      ["Limits memory", yes(it.enforcesMemory)],
      ["Separates networks", { own: "yes", "by-policy": "by a policy", none: "no" }[it.isolatesNetwork] ?? "unknown"],
      ["New agents are made from", it.image ? [h("code", {}, it.image.name), ` ${it.image.version ?? it.image.family}`] : null],
      ["Installation", h("code", {}, it.installation)],
    ]);
    return [list];
  });
