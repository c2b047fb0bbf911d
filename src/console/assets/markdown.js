// Markdown as elements. Text stays text: what looks like HTML is shown as it was written, and links lead to the web only.

import { h } from "./dom.js";

const INLINE = /(`+)([\s\S]+?)\1|\*\*([\s\S]+?)\*\*|__([\s\S]+?)__|(?<![\w*])\*(?!\s)([^*\n]+?)\*(?!\w)|(?<!\w)_(?!\s)([^_\n]+?)_(?!\w)|~~([\s\S]+?)~~|\[([^\]\n]+)\]\(([^)\s]+)(?:\s+"[^"]*")?\)|(https?:\/\/[^\s<>()"'`]+[^\s<>()"'`.,;:!?])/g;
/** Deeper nesting is no text of people. */
const DEEPEST = 6;

const safe = (address) => (/^(https?:\/\/|mailto:)/i.test(address) ? address : null);
const link = (address, inner) => (safe(address) ? h("a", { href: address, rel: "noreferrer noopener nofollow", target: "_blank" }, inner) : h("span", {}, inner, ` (${address})`));

function inline(text, depth = 0) {
  if (depth > DEEPEST) return [text];
  const found = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > at) found.push(text.slice(at, match.index));
    at = match.index + match[0].length;
    const [, , code, bold, bold2, italic, italic2, struck, name, address, bare] = match;
    if (code !== undefined) found.push(h("code", {}, code.trim() || code));
    else if (bold ?? bold2) found.push(h("strong", {}, inline(bold ?? bold2, depth + 1)));
    else if (italic ?? italic2) found.push(h("em", {}, inline(italic ?? italic2, depth + 1)));
    else if (struck) found.push(h("s", {}, inline(struck, depth + 1)));
    else if (name) found.push(link(address, inline(name, depth + 1)));
    else found.push(link(bare, bare));
  }
  if (at < text.length) found.push(text.slice(at));
  return found;
}

const lines = (text) => text.split("\n").flatMap((line, at) => (at ? [h("br"), ...inline(line)] : inline(line)));

/** The elements of a text. */
export function markdown(text, depth = 0) {
  const rows = String(text).replaceAll("\r", "").split("\n");
  const blocks = [];
  let at = 0;
  const while_ = (test) => {
    const from = at;
    while (at < rows.length && test(rows[at], at - from)) at += 1;
    return rows.slice(from, at);
  };
  while (at < rows.length) {
    const row = rows[at];
    const fence = row.match(/^\s*(```+|~~~+)\s*([\w+#.-]*)/);
    if (fence) {
      at += 1;
      const code = while_((it) => !it.trimStart().startsWith(fence[1]));
      at += 1;
      blocks.push(h("pre", { tabindex: "0" }, h("code", {}, code.join("\n"))));
    } else if (!row.trim()) {
      at += 1;
    } else if (/^#{1,6}\s/.test(row)) {
      blocks.push(h("p", { class: "heading" }, h("strong", {}, inline(row.replace(/^#+\s+/, "").replace(/\s+#+$/, "")))));
      at += 1;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(row)) {
      blocks.push(h("hr"));
      at += 1;
    } else if (/^\s*>/.test(row)) {
      const quoted = while_((it) => /^\s*>/.test(it)).map((it) => it.replace(/^\s*> ?/, ""));
      blocks.push(h("blockquote", {}, depth > DEEPEST ? quoted.join("\n") : markdown(quoted.join("\n"), depth + 1)));
    } else if (/^\s*([-*+]|\d{1,9}[.)])\s+/.test(row)) {
      blocks.push(list(while_((it, n) => n === 0 || /^\s*([-*+]|\d{1,9}[.)])\s+/.test(it) || /^\s{2,}\S/.test(it)), depth));
    } else if (row.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(rows[at + 1] ?? "") && rows[at + 1].includes("|")) {
      const [head, , ...body] = while_((it) => it.includes("|"));
      blocks.push(grid(head, body));
    } else {
      blocks.push(h("p", {}, lines(while_((it, n) => n === 0 || (it.trim() && !/^\s*(```|~~~|>|#{1,6}\s|[-*+]\s|\d{1,9}[.)]\s)/.test(it))).join("\n"))));
    }
  }
  return blocks;
}

function list(rows, depth) {
  const ordered = /^\s*\d/.test(rows[0]);
  const indent = rows[0].match(/^\s*/)[0].length;
  const items = [];
  for (const row of rows) {
    const own = row.match(/^\s*/)[0].length <= indent && row.match(/^\s*(?:[-*+]|\d{1,9}[.)])\s+(.*)$/);
    if (own) items.push([own[1]]);
    else items.at(-1)?.push(row.slice(Math.min(indent + 2, row.match(/^\s*/)[0].length)));
  }
  const start = ordered ? Number(rows[0].trim().match(/^\d+/)[0]) : 1;
  const item = ([first, ...rest]) => h("li", {}, inline(first), rest.length && depth <= DEEPEST ? markdown(rest.join("\n"), depth + 1) : rest.join("\n"));
  return h(ordered ? "ol" : "ul", start === 1 ? {} : { start }, items.map(item));
}

function grid(head, body) {
  const cells = (row) => row.trim().replace(/^\||\|$/g, "").split("|").map((it) => inline(it.trim()));
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, cells(head).map((it) => h("th", { scope: "col" }, it)))), h("tbody", {}, body.map((row) => h("tr", {}, cells(row).map((it) => h("td", {}, it)))))));
}
