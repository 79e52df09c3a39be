// The endpoints with every signal and its age: what is wrong first.

import { byId, cut, facts, setText } from "./dom.js";
import { Table } from "./table.js";
import { NOTHING, number, percent, seconds } from "./wording.js";

const [GOOD, WARN, BAD] = ["good", "warn", "bad"];

/** [class, words, rank]; the lowest rank is shown first. */
function stateOf(endpoint, staleAfter) {
  const scraping = endpoint.scraping;
  if (endpoint.ageSeconds === null) return scraping?.failing ? [BAD, "never read", 0] : [WARN, "not read yet", 2];
  if (endpoint.ageSeconds > staleAfter) return [BAD, "stale", 0];
  if (scraping?.failing) return [WARN, "failing", 1];
  if (scraping?.missingValues?.length) return [WARN, "incomplete", 3];
  return [GOOD, "ready", 4];
}

export class Endpoints {
  constructor() {
    this.filter = byId("endpoints-filter");
    this.items = [];
    this.table = new Table(byId("endpoints-table"), COLUMNS, {
      key: (item) => item.id,
      detail,
      order: (a, b) => a.state[2] - b.state[2] || a.id.localeCompare(b.id, undefined, { numeric: true }),
      empty: "no endpoint",
    });
    this.filter.addEventListener("input", () => this.showFiltered());
  }

  show({ endpoints, staleAfterSeconds }) {
    const all = endpoints.endpoints;
    const busiest = Math.max(1, ...all.map((endpoint) => endpoint.runningRequests ?? 0));
    const longest = Math.max(1, ...all.map((endpoint) => endpoint.waitingQueue ?? 0));
    this.items = all.map((endpoint) => ({
      ...endpoint, busiest, longest, state: stateOf(endpoint, staleAfterSeconds), searched: searched(endpoint),
    }));
    this.showFiltered();
  }

  showFiltered() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = this.items.filter((item) => words.every((word) => item.searched.includes(word)));
    const ready = this.items.filter((item) => item.state[0] === GOOD).length;
    const counted = `${ready} of ${this.items.length} ready`;
    setText(byId("endpoints-count"), words.length ? `${shown.length} shown, ${counted}` : counted);
    this.table.show(shown);
  }
}

const searched = (endpoint) =>
  [endpoint.id, endpoint.address, ...Object.entries(endpoint.labels).map((pair) => pair.join("=")),
    ...endpoint.activeModels, ...endpoint.waitingModels].join("\n").toLowerCase();

function models(endpoint) {
  const { activeModels: active, waitingModels: waiting, maxActiveModels: most } = endpoint;
  if (!active.length && !waiting.length && !most) return NOTHING;
  const names = [...active, ...waiting.map((name) => `${name} (waiting)`)].join(", ");
  return `${active.length}${most ? `/${most}` : ""}${names ? ` ${names}` : ""}`;
}

const COLUMNS = [
  { title: "Endpoint", text: (item) => item.name || item.id, sort: (item) => item.id, long: true },
  { title: "State", text: (item) => item.state[1], state: (item) => (item.state[0] === GOOD ? "" : item.state[0]), sort: (item) => item.state[2] },
  { title: "Waiting", number: true, text: (item) => number(item.waitingQueue), sort: (item) => item.waitingQueue,
    share: (item) => item.waitingQueue / item.longest, explained: "Requests in the server's queue" },
  { title: "Running", number: true, text: (item) => number(item.runningRequests), sort: (item) => item.runningRequests,
    share: (item) => item.runningRequests / item.busiest, explained: "Requests that the server works on" },
  { title: "KV cache", number: true, text: (item) => percent(item.kvCacheUsage), sort: (item) => item.kvCacheUsage,
    share: (item) => item.kvCacheUsage, explained: "Use of the server's KV cache" },
  { title: "Age", number: true, text: (item) => seconds(item.ageSeconds), sort: (item) => item.ageSeconds,
    explained: "Since these signals were read, all at once" },
  { title: "KV blocks", number: true, sort: (item) => item.cacheNumBlocks, explained: "Number of blocks × tokens in each",
    text: (item) => (item.cacheNumBlocks ? `${number(item.cacheNumBlocks)} × ${number(item.cacheBlockSize)}` : NOTHING) },
  { title: "Adapters", text: models, sort: (item) => item.activeModels.length, long: true,
    explained: "Loaded LoRA adapters, and how many can be" },
  { title: "Failures", number: true, text: (item) => number(item.scraping?.failures ?? null),
    sort: (item) => item.scraping?.failures, explained: "Failed reads since the endpoint is known" },
  { title: "Address", text: (item) => item.address, sort: (item) => item.address, long: true },
];

function detail(item) {
  const scraping = item.scraping;
  return facts([
    ["id", item.id],
    ["address", item.address],
    ["read from", scraping?.source],
    ["last good read", scraping?.lastSuccessSecondsAgo == null ? null : `${seconds(scraping.lastSuccessSecondsAgo)} ago`],
    ["last error", scraping?.lastError],
    ["values not found", scraping?.missingValues?.join(", ")],
    ["labels", Object.entries(item.labels).map((pair) => pair.join("=")).join(", ")],
    ["adapters loaded", item.activeModels.join(", ")],
    ["adapters waiting", item.waitingModels.join(", ")],
    ...Object.entries(item.attributes).map(([name, value]) =>
      [name, cut(typeof value === "string" ? value : JSON.stringify(value))]),
  ]);
}
