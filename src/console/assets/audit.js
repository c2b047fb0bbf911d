// Who did what, for administrators.

import { $, absolute, fill, h } from "./dom.js";
import { call, query } from "./api.js";
import { failed, start } from "./shell.js";
import { empty, Pages, table } from "./table.js";

let pages;

start(async () => {
  pages = new Pages($("#pager"), load);
  $("#filters").addEventListener("submit", (event) => {
    event.preventDefault();
    pages.reset();
    load();
  });
  await load();
});

async function load() {
  const { user, action } = Object.fromEntries(new FormData($("#filters")));
  try {
    const page = await call(query("/api/admin/audit", { user: user.trim(), action: action.trim(), limit: 50, cursor: pages.cursor }));
    pages.show(page);
    if (!page.data.length) return fill($("#entries"), empty("Nothing fits."));
    const rows = page.data.map((it) => [
      h("time", { datetime: it.time, title: it.time }, absolute(it.time)),
      [h("span", {}, it.email ?? it.user ?? it.actor ?? "nobody"), h("span", { class: "hint below" }, [it.via, it.address].filter(Boolean).join(", "))],
      it.action ?? it.what ?? "",
      h("code", {}, it.target ?? ""),
      String(it.outcome ?? it.status ?? ""),
    ]);
    fill($("#entries"), table("Audit", ["Time", "Who", "What", "On", "Outcome"], rows));
  } catch (error) {
    if (error.status === 404) fill($("#entries"), empty("This service keeps no audit."));
    else if (error.status !== 401) await failed($("#entries"), error, load);
  }
}
