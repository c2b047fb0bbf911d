// What belongs to no agent, for administrators: given to somebody, or removed.

import { $, ask, busy, fill, h, toast, when } from "./dom.js";
import { call, query, to } from "./api.js";
import { attempt, failed, start } from "./shell.js";
import { empty, Pages, table } from "./table.js";

const PATH = "/api/admin/orphans";
let pages;

start(async () => {
  pages = new Pages($("#pager"), load);
  await load();
});

async function load() {
  const place = $("#orphans");
  try {
    const page = await call(query(PATH, { limit: 50, cursor: pages.cursor }));
    pages.show(page);
    if (!page.data.length) return fill(place, empty("There are none.", "Everything that the runtime has for this service belongs to an agent."));
    fill(place, table("Orphans", ["Instance", "Was", "Owner", "State", "Made", ""], page.data.map(row)));
  } catch (error) {
    if (error.status !== 401) await failed(place, error, load);
  }
}

function row(orphan) {
  const { origin, slug } = orphan;
  const button = (label, action, options = {}) => h("button", { type: "button", "aria-label": `${label} ${slug}`, ...options, onclick: (event) => busy(event.currentTarget, () => attempt(action)) }, label);
  return [
    [h("strong", {}, slug), h("code", { class: "hint below" }, orphan.id)],
    origin ? [origin.name, h("span", { class: "hint below" }, `${origin.provider}, ${origin.model}`)] : h("span", { class: "hint" }, "It does not tell."),
    origin?.email ?? h("span", { class: "hint" }, origin ? "Gone" : "Unknown"),
    [orphan.state, orphan.deletedHere ? h("span", { class: "warn below" }, "its agent was deleted here") : null],
    origin ? when(origin.createdAt) : "–",
    h("div", { class: "buttons" }, button("Adopt", () => adopt(orphan)), button("Remove", () => remove(orphan), { class: "danger" })),
  ];
}

/** Makes it an agent of somebody again. */
async function adopt({ id, slug, origin }) {
  const owner = h("input", { id: "new-owner", type: "email", value: origin?.email ?? "", autocomplete: "off", autofocus: true });
  const body = [
    h("p", {}, "It becomes an agent again, with the data that it has. Its secrets are missing: the owner enters the key of its model in its settings, then starts it."),
    h("div", { class: "field" }, h("label", { for: "new-owner" }, "Owner, by e-mail address"), owner),
  ];
  if (!(await ask({ title: `Adopt ${slug}?`, body, action: "Adopt", danger: false }))) return;
  const email = owner.value.trim();
  const { data } = email ? await call(query("/api/admin/users", { email })) : { data: [] };
  if (!data.length) return toast(email ? `Nobody has the address ${email}.` : "Say whose agent it is to be.", "bad");
  const agent = await call(PATH, { method: "POST", json: { id, action: "adopt", user: data[0].id } });
  location.assign(to(`/agents/${agent.id}`));
}

async function remove({ id, slug }) {
  if (!(await ask({ title: `Remove ${slug}?`, body: "It goes with its memory and its files. This cannot be undone.", action: "Remove", type: slug }))) return;
  await call(PATH, { method: "POST", json: { id, action: "remove" } });
  toast(`${slug} was removed.`);
  await load();
}
