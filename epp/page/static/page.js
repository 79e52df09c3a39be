// Follows the picker's events and shows them.

import { Charts } from "./charts.js";
import { Configuration, list } from "./configuration.js";
import { Decisions } from "./decisions.js";
import { byId, cut, setClass, setText } from "./dom.js";
import { Endpoints } from "./endpoints.js";
import { Queues } from "./queues.js";
import { Shadow } from "./shadow.js";
import { bytes, number, seconds, zone } from "./wording.js";

const SILENT_MS = 10_000;
const AGAIN_MS = 15_000;
const HIDDEN_MS = 60_000;

const charts = new Charts(byId("charts"));
const configuration = new Configuration();
const shadow = new Shadow();
const parts = [new Endpoints(), new Queues(), new Decisions()];
let heardMs = null;

const SHOW = {
  config: (data) => configuration.show(data),
  history: (data) => charts.show(data),
  shadow: (data) => shadow.show(data),
  state: showState,
};

function showState(state) {
  heardMs = Date.now();
  const ready = state.notReady.length === 0;
  setText(byId("pool"), `${state.pool.namespace}/${state.pool.name || "pool"}`);
  document.title = cut(`${ready ? "" : "not ready: "}${state.pool.name || "Endpoint picker"}`);
  setText(byId("ready"), ready ? "ready" : "not ready");
  setClass(byId("ready"), `state ${ready ? "good" : "bad"}`);
  list(byId("reasons"), state.notReady);
  setText(byId("about"), [
    state.pod, `version ${state.version}${state.commit ? ` (${state.commit.slice(0, 10)})` : ""}`,
    `up ${seconds(state.at - state.startedAt)}`, `${number(state.openStreams)} streams`, `request bodies ${bytes(state.bufferedBytes)}`,
  ].filter(Boolean).join(" · "));
  for (const part of parts) part.show(state);
  showLink();
}

function showLink() {
  const silent = heardMs === null || Date.now() - heardMs > SILENT_MS;
  setText(byId("link"), heardMs === null ? "" : silent ? `no news for ${seconds((Date.now() - heardMs) / 1000)}` : "live");
  setClass(byId("link"), `quiet ${silent && heardMs !== null ? "bad" : ""}`.trim());
}

let events = null;
let later = null;

function follow() {
  clearTimeout(later);
  if (events) return;
  const source = new EventSource("page/events");
  events = source;
  for (const [name, show] of Object.entries(SHOW)) {
    source.addEventListener(name, ({ data }) => show(JSON.parse(data)));
  }
  // A broken connection comes again by itself; an answer other than a stream does not.
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return;
    if (heardMs === null) setText(byId("ready"), "no events: not allowed, or too many pages are open");
    rest();
    later = setTimeout(follow, AGAIN_MS);
  });
}

function rest() {
  events?.close();
  events = null;
}

// Nobody looks at a tab that has been behind others for a while, and the picker need not work for it.
document.addEventListener("visibilitychange", () => {
  clearTimeout(later);
  if (document.hidden) later = setTimeout(rest, HIDDEN_MS);
  else follow();
});

setText(byId("zone"), `Times are of this browser, ${zone(new Date().getTimezoneOffset())}.`);
setInterval(showLink, 1000);
follow();
