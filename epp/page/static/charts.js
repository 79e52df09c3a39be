// Small charts of the last minutes, one for each number an operator asks for first.

import { make, makeSvg, setText } from "./dom.js";
import { NOTHING, number, perSecond, percent, seconds, time } from "./wording.js";

const WIDTH = 300;
const HEIGHT = 60;
const PAD = 3;
const LEAST_SHOWN = 24;

/** first, second: columns of the history; band: [least, most]; top: fixed scale. */
const CHARTS = [
  { title: "Requests", first: "requests_per_s", second: "errors_per_s", show: perSecond,
    note: (last) => `errors ${perSecond(last("errors_per_s"))}` },
  { title: "In flight", first: "in_flight", show: number, note: () => "sent and not over" },
  { title: "Running on servers", first: "running", show: number,
    note: (last) => `ready endpoints ${number(last("ready"))} of ${number(last("endpoints"))}` },
  { title: "Waiting on servers", first: "waiting", show: number,
    note: (last) => `longest queue ${number(last("waiting_most"))}` },
  { title: "KV cache in use", first: "kv_mean", band: ["kv_least", "kv_most"], show: percent, top: 1,
    note: (last) => `servers ${percent(last("kv_least"))} to ${percent(last("kv_most"))}` },
  { title: "Prompt tokens cached", first: "cached_share", show: percent, top: 1, note: () => "of what was reported" },
  { title: "Time to first byte, p50", first: "ttft_p50_s", second: "ttft_p95_s", show: seconds,
    note: (last) => `p95 ${seconds(last("ttft_p95_s"))}` },
  { title: "Tokens generated", first: "output_tokens_per_s", show: perSecond, note: () => "as reported" },
];

export class Charts {
  constructor(box) {
    this.charts = CHARTS.map((chart) => new Chart(chart));
    box.replaceChildren(...this.charts.map((chart) => chart.element));
  }

  show(history) {
    for (const chart of this.charts) chart.show(history);
  }
}

class Chart {
  constructor(options) {
    this.options = options;
    this.now = make("span", { class: "now" }, NOTHING);
    this.note = make("div", { class: options.second ? "note two" : "note" });
    this.scale = make("span");
    this.svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.left = make("span");
    this.right = make("span");
    this.element = make("figure", {},
      make("figcaption", {}, make("span", {}, options.title), this.now),
      this.note, this.svg, make("div", { class: "scale" }, this.left, this.scale, this.right));
  }

  show({ columns, everySeconds }) {
    const { first, second, band, show, top, title } = this.options;
    const column = (name) => columns[name] ?? [];
    const last = (name) => column(name).at(-1);
    const values = column(first);
    const others = second ? column(second) : [];
    const all = [...values, ...others, ...(band ? column(band[1]) : [])].filter((value) => value !== null);
    const most = all.length ? Math.max(...all) : 0;
    const scale = { top: top ?? roundUp(most), shown: Math.max(values.length, LEAST_SHOWN), count: values.length };
    const parts = [line("axis", `M0 ${HEIGHT - 0.5}H${WIDTH}`)];
    if (band) parts.push(line("band", area(column(band[0]), column(band[1]), scale)));
    if (second) parts.push(line("second", path(others, scale)));
    parts.push(line("first", path(values, scale)), line("dot", lastPoint(values, scale)));
    this.svg.replaceChildren(...parts);
    setText(this.now, show(last(first)));
    setText(this.note, this.options.note(last));
    this.svg.setAttribute("aria-label", `${title}: now ${show(last(first))}, at most ${show(all.length ? most : null)}`);
    const times = column("at_s");
    setText(this.left, times.length ? time(times.at(-1) - (scale.shown - 1) * everySeconds, false) : "");
    setText(this.right, all.length ? "now" : "no data yet");
    setText(this.scale, all.length ? `0 to ${show(scale.top)}` : "");
  }
}

const line = (name, d) => makeSvg("path", { class: name, d });

/** The newest sample is at the right edge. */
const x = (index, { shown, count }) => round(WIDTH - PAD - ((count - 1 - index) * (WIDTH - PAD)) / (shown - 1));
const y = (value, { top }) => round(HEIGHT - 1 - (Math.min(value, top) / top) * (HEIGHT - 2 * PAD));
const round = (value) => Math.round(value * 10) / 10;

/** With a gap where nothing is known, and a point where one sample stands alone. */
function path(values, scale) {
  let pen = "";
  values.forEach((value, index) => {
    if (value === null) return;
    const starts = index === 0 || values[index - 1] === null;
    pen += `${starts ? "M" : "L"}${x(index, scale)} ${y(value, scale)}`;
    const alone = starts && (index === values.length - 1 || values[index + 1] === null);
    if (alone) pen += "h0.01";
  });
  return pen;
}

function area(least, most, scale) {
  const known = most.map((value, index) => index).filter((index) => most[index] !== null && least[index] !== null);
  if (known.length < 2) return "";
  const above = known.map((index) => `${x(index, scale)} ${y(most[index], scale)}`);
  const below = known.reverse().map((index) => `${x(index, scale)} ${y(least[index], scale)}`);
  return `M${[...above, ...below].join("L")}Z`;
}

function lastPoint(values, scale) {
  const value = values.at(-1);
  return value === null || value === undefined ? "" : `M${x(values.length - 1, scale)} ${y(value, scale)}h0.01`;
}

/** A round number times a power of ten: a scale that jumps with every sample cannot be read. */
function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}
