// Tables that become cards on narrow screens. The roles are said aloud, since such a table is none to a browser any more.

import { h } from "./dom.js";

/** `columns` are names, `rows` are lists of cells (texts or nodes), each with an optional `key` and `attributes`. */
export function table(label, columns, rows, attributes = {}) {
  return h(
    "table",
    { role: "table", "aria-label": label, ...attributes },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map((name) => h("th", { role: "columnheader", scope: "col" }, name || h("span", { class: "hidden" }, "Actions"))))),
    h("tbody", { role: "rowgroup" }, rows.map((row) => line(columns, row))),
  );
}

function line(columns, cells) {
  return h(
    "tr",
    { role: "row" },
    cells.map((cell, at) => h("td", { role: "cell", "data-label": typeof columns[at] === "string" ? columns[at] : "" }, h("div", {}, cell ?? ""))),
  );
}

/** A list that comes in pages: shows where one is, and goes forth and back. */
export class Pages {
  constructor(pager, changed) {
    this.pager = pager;
    this.changed = changed;
    this.reset();
    pager.querySelector("#next").addEventListener("click", () => this.next && this.go([...this.before, this.next]));
    pager.querySelector("#previous").addEventListener("click", () => this.before.length && this.go(this.before.slice(0, -1)));
  }

  /** Where this page begins; nothing for the first. */
  get cursor() {
    return this.before.at(-1) ?? null;
  }

  reset() {
    this.before = [];
    this.next = null;
  }

  go(before) {
    this.before = before;
    this.changed();
  }

  /** Takes in what came. */
  show(page) {
    this.next = page.nextCursor;
    this.pager.hidden = !this.next && !this.before.length;
    this.pager.querySelector("#page").textContent = `Page ${this.before.length + 1}`;
    this.pager.querySelector("#next").disabled = !this.next;
    this.pager.querySelector("#previous").disabled = !this.before.length;
  }
}

/** A place with nothing in it says why, and what to do. */
export const empty = (title, ...more) => h("div", { class: "empty" }, h("p", {}, h("strong", {}, title)), more.length ? h("p", {}, more) : null);
