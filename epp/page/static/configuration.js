// The configuration in use, what the last reload changed, and what became of the last attempt.

import { byId, cut, make, setText, visible } from "./dom.js";
import { Table } from "./table.js";
import { time } from "./wording.js";

const RESULT = {
  success: ["good", "in use"],
  noop: ["good", "means the same as before"],
  failure: ["bad", "not used: the one before stays"],
  restart_required: ["warn", "not used: it takes a restart"],
};
const SEVERITY = { error: "bad", warning: "warn" };
const unix = (text) => Date.parse(text) / 1000;

export class Configuration {
  constructor() {
    this.findings = new Table(byId("findings-table"), [
      { title: "Finding", text: (item) => item.code },
      { title: "Severity", text: (item) => item.severity, state: (item) => SEVERITY[item.severity] ?? "" },
      { title: "Where", text: (item) => item.path },
      { title: "What", text: (item) => item.message },
      { title: "Fix", text: (item) => item.fix },
    ], { key: (item) => `${item.code} ${item.path} ${item.message}`, empty: "none" });
  }

  show(config) {
    const follow = !config.isFile ? "given on the command line" : config.isWatched ? "followed" : "read again on SIGHUP";
    byId("config-about").replaceChildren(...pairs([
      ["source", [`${config.source} (${follow})`]],
      ["loaded", [time(unix(config.loadedAt))]],
      ["hash", [config.sha256.slice(0, 16)]],
      ["last reload", attempt(config.reload)],
    ]));
    list(byId("config-problems"), config.reload?.problems ?? []);
    byId("findings-box").hidden = !config.findings.length;
    this.findings.show(config.findings);
    byId("effective").textContent = visible(config.effective);
    this.showDiff(config.former);
  }

  showDiff(former) {
    const lines = former?.diff ?? [];
    const none = byId("diff-none");
    none.hidden = lines.length > 0;
    setText(none, former ? "Nothing of the completed document." : "Nothing: this is the first configuration of this process.");
    byId("diff").hidden = !lines.length;
    byId("diff").replaceChildren(...lines.map((line) => make("span", { class: kind(line) }, line || " ")));
  }
}

export function list(element, texts) {
  element.hidden = !texts.length;
  element.replaceChildren(...texts.map((text) => make("li", {}, cut(text))));
}

function attempt(reload) {
  if (!reload) return ["none"];
  const [state, words] = RESULT[reload.result] ?? ["", reload.result];
  return [make("span", { class: `state ${state}` }, words), ` at ${time(unix(reload.at))}`];
}

const pairs = (entries) => entries.flatMap(([name, content]) => [make("dt", {}, name), make("dd", {}, ...content)]);
const kind = (line) => ({ "+": "plus", "-": "minus", "@": "hunk" })[line[0]] ?? "";
