// What a second configuration would have done with the same requests, and why there is none any more.

import { byId, facts, setText } from "./dom.js";
import { Table } from "./table.js";
import { NOTHING, number, percent, time } from "./wording.js";

const score = (value) => (value === null || value === undefined ? NOTHING : value.toFixed(3));
const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
const counts = (table, words) => Object.entries(table ?? {}).map(([name, count]) => words(name, count)).join(", ");

const REASONS = [
  { title: "Decided by", text: (item) => item.reason, long: true },
  { title: "Requests", number: true, text: (item) => number(item.requests), share: (item) => item.ofAll },
  { title: "Mean margin", number: true, text: (item) => score(item.mean_margin),
    explained: "The shadow's total of its own endpoint, less its total of the one that was used" },
  { title: "Largest", number: true, text: (item) => score(item.max_margin) },
  { title: "Tokens won", number: true, text: (item) => number(item.prefix_tokens_won),
    explained: "Prompt tokens thought cached on the shadow's endpoint and not on the one that was used" },
  { title: "Tokens lost", number: true, text: (item) => number(item.prefix_tokens_lost) },
];

const BAD = { refused: "would be refused", failed: "failed" };

const RECENT = [
  { title: "Time", text: (item) => time(item.at_s) },
  { title: "Request", text: (item) => item.request_id || NOTHING, long: true },
  { title: "Went to", text: (item) => item.live, long: true },
  { title: "By the shadow", text: (item) => BAD[item.verdict] ?? item.shadow, state: (item) => (BAD[item.verdict] ? "bad" : "") },
  { title: "Because of", text: (item) => item.error || item.reason, long: true },
  { title: "Margin", number: true, text: (item) => score(item.margin) },
  { title: "Tokens", number: true, text: (item) => signed(item.prefix_tokens), explained: "Prompt tokens thought cached: won or lost" },
];

export class Shadow {
  constructor() {
    this.parts = document.querySelectorAll("[data-for=shadow]");
    this.reasons = new Table(byId("shadow-reasons-table"), REASONS, {
      key: (item) => item.reason, empty: "it has sent no request elsewhere",
    });
    this.recent = new Table(byId("shadow-recent-table"), RECENT, {
      key: (item) => item.place, empty: "it has sent no request elsewhere",
    });
  }

  show(shadow) {
    const isThere = shadow.enabled || Boolean(shadow.problem);
    for (const part of this.parts) part.hidden = !isThere;
    if (!isThere) return;
    const ended = byId("shadow-ended");
    ended.hidden = shadow.enabled;
    setText(ended, shadow.enabled ? "" : `There is no shadow any more: ${shadow.problem}`);
    const { agree = 0, disagree = 0, refused = 0, failed = 0 } = shadow.verdicts;
    setText(byId("shadow-about"), shadow.disagreement === null ? "nothing to compare yet"
      : `sends ${percent(1 - shadow.disagreement)} of the requests to the same endpoint`);
    byId("shadow-facts").replaceChildren(...facts([
      ["document", `${shadow.source} (${shadow.sha256.slice(0, 16)})`],
      ["since", time(shadow.since_s)],
      ["until", shadow.enabled ? null : time(shadow.ended_s)],
      ["shown", shadow.enabled ? `${percent(shadow.share)} of the requests` : null],
      ["compared", `${number(shadow.compared)}: ${number(agree)} agree, ${number(disagree)} elsewhere, `
        + `${number(refused)} refused, ${number(failed)} failed`],
      ["expected score", scoreOf(shadow.effect)],
      ["expected cache", cacheOf(shadow.effect)],
      ["left out", counts(shadow.skipped, (why, count) => `${number(count)} for want of ${why === "time" ? "time" : "room"}`)],
      ["plugins that failed", counts(shadow.plugin_errors, (name, count) => `${name} ${number(count)} times`)],
      ["to use it, a restart", (shadow.restart ?? []).join(", ")],
    ]).children);
    this.reasons.show(shadow.reasons.map((item) => ({ ...item, ofAll: disagree ? item.requests / disagree : 0 })));
    this.recent.show(shadow.recent.map((item, place) => ({ ...item, place })));
  }
}

const scoreOf = ({ rated, mean_margin, max_margin }) => (rated
  ? `its own endpoints ${score(mean_margin)} above those that were used, at most ${score(max_margin)}; ${number(rated)} rated` : null);

const cacheOf = ({ prefix_tokens_won, prefix_tokens_lost }) => (prefix_tokens_won === null ? null
  : `${number(prefix_tokens_won)} prompt tokens more, ${number(prefix_tokens_lost)} fewer`);
