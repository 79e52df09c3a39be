// What waits in the picker, where flow control is on.

import { byId, setText } from "./dom.js";
import { Table } from "./table.js";
import { NOTHING, bytes, number, perSecond, percent, seconds } from "./wording.js";

const flows = (band) => {
  const shown = band.flows.slice(0, 3).map((flow) => `${flow.id} ${number(flow.requests)}`).join(", ");
  const more = band.flows.length - 3 + (band.moreFlows ?? 0);
  return shown ? `${shown}${more > 0 ? ` and ${more} more` : ""}` : NOTHING;
};

const COLUMNS = [
  { title: "Priority", text: (band) => String(band.priority) },
  { title: "Waiting", number: true, text: (band) => number(band.requests),
    share: (band) => (band.maxRequests ? band.requests / band.maxRequests : 0) },
  { title: "Limit", number: true, text: (band) => (band.maxRequests ? number(band.maxRequests) : "none") },
  { title: "Bytes", number: true, text: (band) => bytes(band.bytes) },
  { title: "Oldest", number: true, text: (band) => seconds(band.oldestSeconds) },
  { title: "Served", number: true, text: (band) => perSecond(band.servedPerSecond) },
  { title: "Retry after", number: true, text: (band) => seconds(band.retryAfterSeconds) },
  { title: "Longest flows", text: flows, long: true },
];

export class Queues {
  constructor() {
    this.parts = document.querySelectorAll("[data-for=queues]");
    this.table = new Table(byId("queues-table"), COLUMNS, {
      key: (band) => band.priority, order: (a, b) => b.priority - a.priority, empty: "nothing waits",
    });
  }

  show({ queues }) {
    const isThere = Boolean(queues?.enabled);
    for (const part of this.parts) part.hidden = !isThere;
    if (!isThere) return;
    const limit = queues.maxRequests ? ` of ${number(queues.maxRequests)}` : "";
    setText(byId("queues-about"),
      `saturation ${percent(queues.saturation?.effective)}, ${number(queues.requests)}${limit} waiting, ${bytes(queues.bytes)}`);
    this.table.show(queues.bands ?? []);
  }
}
