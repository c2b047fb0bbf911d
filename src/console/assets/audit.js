// Who did what, for administrators.

import { $, absolute, busy, fill, h } from "./dom.js";
import { call, query, request } from "./api.js";
import { attempt, failed, start } from "./shell.js";
import { empty, Pages, table } from "./table.js";

let pages;

start(async () => {
  pages = new Pages($("#pager"), load);
  $("#filters").addEventListener("submit", (event) => {
    event.preventDefault();
    pages.reset();
    load();
  });
  $("#export").addEventListener("click", (event) => busy(event.currentTarget, () => attempt(download)));
  await load();
});

const filter = () => Object.fromEntries([...new FormData($("#filters"))].map(([name, value]) => [name, value.trim()]));

async function load() {
  try {
    const page = await call(query("/api/admin/audit", { ...filter(), limit: 50, cursor: pages.cursor }));
    pages.show(page);
    if (!page.data.length) return fill($("#entries"), empty("Nothing fits."));
    const rows = page.data.map((it) => [
      h("time", { datetime: it.time, title: it.time }, absolute(it.time)),
      [h("span", {}, it.email ?? it.user ?? "Nobody who is known"), h("span", { class: "hint below" }, [it.via ? `by ${it.via}` : null, it.address].filter(Boolean).join(", "))],
      [h("span", {}, it.action), h("span", { class: "hint below" }, it.target)],
      [h("span", { class: it.outcome === "done" ? "" : "warn" }, it.outcome), it.code ? h("span", { class: "hint below" }, it.code) : null],
    ]);
    fill($("#entries"), table("Audit", ["Time", "Who", "What", "Outcome"], rows));
  } catch (error) {
    if (error.status === 404) fill($("#entries"), empty("This service keeps no audit."));
    else if (error.status !== 401) await failed($("#entries"), error, load);
  }
}

async function download() {
  const response = await request(query("/api/admin/audit", filter()), { headers: { Accept: "application/x-ndjson" } });
  const address = URL.createObjectURL(await response.blob());
  h("a", { href: address, download: "audit.ndjson" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
