// Figures over time as pictures, with the same in words.

import { clock, h, number, svg } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 140;
const DAY_MS = 86_400_000;

/** A moment at the end of an axis: with its day where the axis is longer than one. */
const moment = (at, long) => (long ? new Date(at).toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false }) : clock(at));

/**
 * A picture of `lines`, each a name with a function from a point to its value, from `from` to `to`; nothing where nothing was
 * measured. Where two points are further apart than `gap` milliseconds the line is broken: nothing is known of the time between.
 */
export function plot({ title, unit, lines, format = number, points, from, to, gap = Infinity }) {
  const measured = (read) => points.map((it) => [new Date(it.at), read(it)]).filter(([, value]) => value !== null && value !== undefined);
  const series = lines.map(([name, read]) => [name, measured(read)]).filter(([, values]) => values.length);
  if (!series.length) return null;
  const most = Math.max(...series.flatMap(([, values]) => values.map(([, value]) => value)), 0);
  const top = most === 0 ? 1 : most * 1.1;
  const x = (at) => (WIDTH * (at - from)) / (to - from);
  const y = (value) => HEIGHT - (HEIGHT * value) / top;
  const words = series.map(([name, values]) => `${name}: last ${format(values.at(-1)[1])}, at most ${format(Math.max(...values.map(([, value]) => value)))}`).join(". ");
  const picture = svg("svg", { class: "plot", viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}. ${words}` });
  for (const part of [0, 0.5, 1]) picture.append(svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }));
  series.forEach(([, values], at) => {
    const begins = (n) => n === 0 || values[n][0] - values[n - 1][0] > gap;
    // A point that stands alone is a short stroke, or it would not be seen.
    const alone = (n) => begins(n) && (n + 1 === values.length || begins(n + 1));
    const path = values.map(([time, value], n) => `${begins(n) ? "M" : "L"}${x(time).toFixed(1)} ${y(value).toFixed(1)}${alone(n) ? "h4" : ""}`).join("");
    picture.append(svg("path", { class: `line line-${at}`, d: path }));
  });
  const long = to - from > DAY_MS;
  return h(
    "figure",
    { class: "card" },
    h("figcaption", {}, h("strong", {}, title), ` ${unit}`),
    h("p", { class: "hint top-of-plot" }, format(top)),
    picture,
    h("p", { class: "hint ends" }, h("span", {}, moment(from, long)), h("span", {}, moment(to, long))),
    h("p", { class: "hint keys" }, series.map(([name, values], at) => h("span", {}, h("span", { class: `key line-${at}`, "aria-hidden": "true" }), `${name}: ${format(values.at(-1)[1])}`))),
  );
}
