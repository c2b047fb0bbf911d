// API keys: a table of them, and a form for a new one. The same for one's own and, for administrators, for others'.

import { $, ask, busy, copy, fill, h, when } from "./dom.js";
import { call } from "./api.js";
import { attempt, failed } from "./shell.js";
import { showProblem } from "./fields.js";
import { empty, table } from "./table.js";

const DAY = 86_400_000;

/** Lists the keys at `path` into `place`. */
export async function listKeys(place, path) {
  try {
    const { data } = await call(`${path}?limit=200`);
    if (!data.length) return fill(place, empty("There are no keys."));
    const rows = data.map((key) => [
      [h("span", {}, key.name ?? "(no name)"), h("span", { class: "hint below" }, key.scopes.join(", "))],
      when(key.createdAt),
      when(key.lastUsedAt, "not since the service started"),
      when(key.expiresAt, "until it is revoked"),
      h("button", { type: "button", "aria-label": `Revoke ${key.name ?? "this key"}`, onclick: (event) => busy(event.currentTarget, () => revoke(key)) }, "Revoke"),
    ]);
    return fill(place, table("API keys", ["Key", "Made", "Last used", "Works", ""], rows));
  } catch (error) {
    if (error.status !== 401) await failed(place, error, () => listKeys(place, path));
  }
  async function revoke(key) {
    const sure = await ask({ title: `Revoke ${key.name ?? "this key"}?`, body: "What uses it is refused at once. Keys that were made with it go with it.", action: "Revoke" });
    if (!sure) return;
    await attempt(async () => (await call(`${path}/${key.id}`, { method: "DELETE" })) ?? true, "The key is revoked.");
    await listKeys(place, path);
  }
}

/** Makes the form for a new key work. */
export function wireNewKey(form, path, made) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busy($("button", form), async () => {
      await showProblem(form, null, $("#key-problem"));
      const fields = new FormData(form);
      const days = Number(fields.get("expiry"));
      const json = {
        scopes: fields.getAll("scopes"),
        ...(fields.get("name").trim() ? { name: fields.get("name").trim() } : {}),
        ...(days ? { expiresAt: new Date(Date.now() + days * DAY).toISOString() } : {}),
      };
      try {
        const key = await call(path(), { method: "POST", json });
        form.reset();
        made();
        await ask({
          title: "The new key",
          body: [h("p", {}, "Copy it now: it is shown this once, and only its hash is kept."), h("pre", { tabindex: "0" }, h("code", { id: "new-key-text" }, key.key)), h("p", {}, h("button", { type: "button", onclick: () => copy(key.key) }, "Copy"))],
          action: "I have it",
          danger: false,
        });
      } catch (error) {
        if (error.status !== 401) await showProblem(form, error, $("#key-problem"));
      }
    });
  });
}
