// The last decisions that were kept, and the whole of one: who was a candidate, who was dropped, how each scorer rated.

import { byId, cut, facts, make, setText } from "./dom.js";
import { Table } from "./table.js";
import { NOTHING, number, percent, seconds, time } from "./wording.js";

const WHY = { share: "sample", asked: "asked", refused: "refused", failed: "failed" };

function stateOf(item) {
  if (item.status >= 400 || (item.cause && item.cause !== "natural")) {
    return item.why === "refused" || item.status >= 500 || !item.status ? "bad" : "warn";
  }
  return "";
}

function whatHappened(item) {
  if (item.error) return item.error;
  if (item.cause && item.cause !== "natural") return item.cause;
  return item.cause && item.status >= 400 ? "so the model server answered" : NOTHING;
}

const COLUMNS = [
  { title: "Time", text: (item) => time(item.at_s) },
  { title: "Status", text: (item) => (item.status ? String(item.status) : item.error ? "error" : "running"), state: stateOf },
  { title: "Went to", text: (item) => item.picked.join(", ") || NOTHING, long: true },
  { title: "Request", text: (item) => item.request_id || NOTHING, long: true },
  { title: "Model", text: (item) => item.model || NOTHING, long: true },
  { title: "Kept as", text: (item) => WHY[item.why] ?? item.why },
  { title: "What happened", long: true,
    text: whatHappened },
];

export class Decisions {
  constructor() {
    this.box = byId("decision");
    this.filter = byId("decisions-filter");
    this.items = [];
    this.bad = [];
    this.chosen = null;
    this.table = new Table(byId("decisions-table"), COLUMNS, {
      key: (item) => item.number,
      choose: (item) => this.open(item.number),
      isChosen: (item) => item.number === this.chosen,
      empty: "none is kept yet",
    });
    this.filter.addEventListener("change", () => this.showFiltered());
  }

  show({ decisions, explainShare }) {
    this.items = decisions.newest;
    this.bad = decisions.bad;
    setText(byId("decisions-about"),
      `refusals and errors, requests that asked, and ${percent(explainShare)} of the rest; ${number(decisions.kept)} kept`);
    this.showFiltered();
  }

  showFiltered() {
    this.table.show(this.filter.value === "bad" ? this.bad : this.items);
  }

  async open(wanted) {
    this.chosen = wanted;
    this.showFiltered();
    let shown;
    try {
      const answer = await fetch(`page/decisions/${wanted}`, { cache: "no-store" });
      shown = answer.ok ? explained(await answer.json()) : [make("p", {}, gone(answer.status))];
    } catch (error) {
      shown = [make("p", {}, `It cannot be had: ${error.message}`)];
    }
    if (this.chosen !== wanted) return;
    const close = make("button", { type: "button", class: "plain" }, "Close");
    close.addEventListener("click", () => this.close());
    this.box.replaceChildren(make("div", { class: "head" }, make("h3", {}, `Decision ${wanted}`), close), ...shown);
    this.box.hidden = false;
    this.box.focus({ preventScroll: true });
    this.box.scrollIntoView({ block: "nearest" });
  }

  close() {
    const row = this.table.rows.get(this.chosen);
    this.chosen = null;
    this.box.hidden = true;
    this.showFiltered();
    row?.button.focus();
  }
}

const gone = (status) => (status === 404 ? "It is no longer kept: newer ones took its place." : `The picker answered ${status}.`);

function explained(record) {
  const admission = record.admission;
  const outcome = record.outcome;
  const head = facts([
    ["request", record.request_id],
    ["path", record.path],
    ["model", record.target_model && record.target_model !== record.model ? `${record.model} → ${record.target_model}` : record.model],
    ["priority", `${record.priority}${record.fairness_id ? `, fairness id ${record.fairness_id}` : ""}`],
    ["admission", admission && `${admission.outcome}${held(admission)}`],
    ["went to", record.picked.length ? `${record.picked.join(", ")} (profile ${record.primary || NOTHING})` : null],
    ["prompt computed by", record.prefill.join(", ")],
    ["media encoded by", record.encode.join(", ")],
    ["refused", record.error && `${record.status || ""} ${record.error}`],
    ["decided in", seconds(record.took_s)],
    ["answered", outcome && answered(outcome)],
    ["tokens", outcome && `${number(outcome.prompt_tokens || null)} in, ${number(outcome.completion_tokens || null)} out`],
    ["prompt tokens cached", cached(record)],
    ["screened out", record.screeners.filter((step) => step.dropped.length)
      .map((step) => `${step.dropped.join(", ")} by ${step.plugin}`).join("; ")],
  ]);
  const failed = record.calls.filter((call) => call.error)
    .map((call) => make("li", { class: "bad" }, cut(`${call.extension_point} ${call.plugin} failed: ${call.error}`)));
  return [head, ...record.profiles.map((profile) => profileTable(record, profile)), failed.length ? make("ul", {}, ...failed) : null]
    .filter(Boolean);
}

function held({ held_s, ahead }) {
  if (!held_s) return "";
  return `, held for ${seconds(held_s)}${ahead ? ` behind ${number(ahead)} others` : ""}`;
}

const answered = (outcome) =>
  `${outcome.status || "nothing"} by ${outcome.served} in ${seconds(outcome.duration_s)}, first byte after `
  + `${seconds(outcome.ttft_s)} (${outcome.cause})`;

function cached(record) {
  const reported = record.outcome?.cached_tokens;
  const expected = record.predicted_cached_tokens;
  if (expected === null && (reported === null || reported === undefined)) return null;
  return `${number(expected)} expected, ${number(reported)} reported`;
}

const few = (names) => (names.length > 6 ? `${names.length} candidates` : names.join(", "));

function profileTable(record, profile) {
  const droppedBy = new Map(profile.filters.flatMap((step) => step.dropped.map((name) => [name, step.plugin])));
  const inputs = (name) => record.inputs[name] ?? {};
  const total = (name) => profile.totals[name];
  const best = Math.max(0, ...Object.values(profile.totals));
  const blocks = (name) => record.prefixes.map((prefix) => `${prefix.matched_blocks[name] ?? 0}/${prefix.total_blocks}`).join(", ");
  const isPicked = (name) => profile.picked.includes(name);
  const columns = [
    { title: "Candidate", text: (name) => name, long: true },
    { title: "Verdict", text: (name) => (isPicked(name) ? "picked" : droppedBy.has(name) ? `dropped by ${droppedBy.get(name)}` : ""),
      state: (name) => (isPicked(name) ? "good" : droppedBy.has(name) ? "warn" : "") },
    { title: "Waiting", number: true, text: (name) => number(inputs(name).waiting_queue) },
    { title: "Running", number: true, text: (name) => number(inputs(name).running_requests) },
    { title: "KV cache", number: true, text: (name) => percent(inputs(name).kv_cache_usage) },
    { title: "Age", number: true, text: (name) => seconds(inputs(name).age_s) },
    ...(record.prefixes.length ? [{ title: "Prefix blocks", number: true, text: blocks }] : []),
    ...profile.scorers.map((scorer) => ({
      title: `${scorer.plugin} ×${number(scorer.weight)}`, number: true, explained: "Score, and what it adds to the total",
      text: (name) => (scorer.scores[name] === undefined ? NOTHING
        : `${scorer.scores[name].toFixed(3)} → ${scorer.weighted[name].toFixed(3)}`),
    })),
    { title: "Total", number: true, text: (name) => total(name)?.toFixed(3) ?? NOTHING,
      share: (name) => (best > 0 ? (total(name) ?? 0) / best : 0) },
  ];
  const order = (a, b) => isPicked(b) - isPicked(a) || droppedBy.has(a) - droppedBy.has(b) || (total(b) ?? 0) - (total(a) ?? 0);
  const element = make("table");
  new Table(element, columns, { key: (name) => name, order, empty: "there was no candidate" }).show(record.candidates);
  const notes = [
    profile.error && `failed: ${profile.error}`,
    profile.tied.length && `equal totals: ${few(profile.tied)}; ${profile.picker} chose among them`,
    ...profile.filters.filter((step) => step.error).map((step) => `filter ${step.plugin} failed: ${step.error}`),
    ...profile.scorers.filter((scorer) => scorer.error).map((scorer) => `scorer ${scorer.plugin}: ${scorer.error}`),
  ].filter(Boolean);
  const name = `Profile ${profile.profile}`;
  return make("div", {},
    make("h3", {}, cut(name)), ...notes.map((note) => make("p", { class: "quiet" }, cut(note))),
    make("div", { class: "scroll", role: "region", "aria-label": cut(name), tabindex: "0" }, element));
}
