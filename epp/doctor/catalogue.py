"""Everything that ``epp doctor`` may find: stable codes, how much each matters, and what it means.

Codes are kept for good; scripts rely on them. ``docs/doctor.md`` has the same table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from epp.errors import Finding, Severity


class Rule(NamedTuple):
    """One kind of finding."""

    severity: Severity
    meaning: str
    """One sentence without its full stop, for the catalogue."""


_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

CATALOGUE: dict[str, Rule] = {
    # What could not be looked at.
    "DOC001": Rule(_ERROR, "An address or file that was named could not be read"),
    "DOC002": Rule(_INFO, "A part of the set-up was not looked at, because nothing told where it is"),
    "DOC003": Rule(_INFO, "A part of the cluster could not be read, and so not looked at"),
    # Envoy: the ext_proc filter.
    "ENV001": Rule(_ERROR, "No listener has an active `ext_proc` filter that calls a gRPC service"),
    "ENV002": Rule(_ERROR, "`observability_mode` is on, so Envoy ignores every answer of the picker"),
    "ENV003": Rule(_ERROR, "`request_header_mode` is `SKIP`, so the picker sees no request"),
    "ENV004": Rule(_WARNING, "The picker decides without the body, and so without model and prompt"),
    "ENV005": Rule(_WARNING, "`BUFFERED_PARTIAL` hides the end of a body that is larger than the buffer"),
    "ENV006": Rule(_ERROR, "A body is `FULL_DUPLEX_STREAMED`, but its trailers are not sent"),
    "ENV007": Rule(_ERROR, "`response_body_mode` buffers responses, so streams arrive in one piece at their end"),
    "ENV008": Rule(_WARNING, "The picker does not learn when a response ends"),
    "ENV009": Rule(_INFO, "The response bypasses the picker: it counts no tokens and measures no latency"),
    "ENV010": Rule(_ERROR, "`message_timeout` ends before the picker must have answered"),
    "ENV011": Rule(_WARNING, "`message_timeout` is below the picker's deadline, in a mode in which not every Envoy applies it"),
    "ENV012": Rule(_WARNING, "`message_timeout` is below the longest wait in the picker's queue"),
    "ENV013": Rule(_WARNING, "`failure_mode_allow` lets requests pass without a decision"),
    "ENV014": Rule(_ERROR, "Without a decision, a client's own destination header decides where its request goes"),
    "ENV015": Rule(_INFO, "A client's own destination header is not removed before `ext_proc`"),
    "ENV016": Rule(_ERROR, "`mutation_rules` forbid the header that carries the decision"),
    "ENV017": Rule(_WARNING, "`disable_immediate_response` turns the picker's refusals into errors"),
    "ENV018": Rule(_ERROR, "The destination is taken from dynamic metadata that Envoy drops"),
    "ENV019": Rule(_WARNING, "Which endpoint really answered is not forwarded to the picker"),
    "ENV020": Rule(_INFO, "The subset hint of the data plane is not forwarded to the picker"),
    "ENV021": Rule(_WARNING, "The listener's buffer is smaller than the bodies that the picker accepts"),
    # Envoy: routes and clusters.
    "ENV030": Rule(_ERROR, "No route behind the picker leads to a cluster that follows its decision"),
    "ENV031": Rule(_WARNING, "A route behind the picker leads to a cluster that ignores its decision"),
    "ENV032": Rule(_ERROR, "A cluster that is needed does not exist"),
    "ENV033": Rule(_WARNING, "Circuit breakers are at their default of 1,024, which streams alone reach"),
    "ENV034": Rule(_WARNING, "Retries are allowed, but at most three at a time in the whole cluster"),
    "ENV035": Rule(_ERROR, "The picker's cluster does not speak HTTP/2, which gRPC needs"),
    "ENV036": Rule(_WARNING, "A route has a timeout that cuts long responses"),
    "ENV037": Rule(_INFO, "`stream_idle_timeout` ends requests whose prefill is silent for long"),
    "ENV038": Rule(_INFO, "While idle, Envoy checks the picker's health only once a minute"),
    "ENV039": Rule(_WARNING, "`ORIGINAL_DST` takes one address, but the picker may name several"),
    # Envoy: what it has counted.
    "ENV050": Rule(_ERROR, "Envoy holds no host of the picker for healthy"),
    "ENV051": Rule(_WARNING, "Envoy gave up on the picker because of `message_timeout`"),
    "ENV052": Rule(_WARNING, "Requests passed without a decision"),
    "ENV053": Rule(_WARNING, "Envoy rejected header changes of the picker"),
    "ENV054": Rule(_WARNING, "A circuit breaker turned requests away"),
    # Picker.
    "PCK001": Rule(_ERROR, "The picker is not ready"),
    "PCK002": Rule(_WARNING, "The event loop answers late"),
    "PCK003": Rule(_ERROR, "A plugin is left out at the moment because it was too slow too often"),
    "PCK004": Rule(_WARNING, "Calls of a plugin were left out since the start"),
    "PCK005": Rule(_ERROR, "A plugin raised or broke its contract"),
    "PCK006": Rule(_ERROR, "The last load of the configuration failed"),
    "PCK007": Rule(_WARNING, "The configuration in use was loaded with a warning"),
    "PCK008": Rule(_WARNING, "Request bodies nearly fill the memory that they may take"),
    "PCK009": Rule(_WARNING, "Cached prefixes are predicted that an endpoint does not have, or the other way round"),
    "PCK010": Rule(_WARNING, "Many scheduling decisions found no endpoint"),
    "PCK011": Rule(_WARNING, "The clock of the picker's machine and the one here differ"),
    "PCK012": Rule(_WARNING, "Requests wait long for the event loop"),
    "PCK013": Rule(_WARNING, "A changed configuration waits for a restart"),
    "PCK014": Rule(_WARNING, "Many calls of a plugin take longer than their budget"),
    "PCK015": Rule(_WARNING, "The shadow configuration is not running"),
    "PCK016": Rule(_WARNING, "Plugins of the shadow configuration fail"),
    "PCK017": Rule(_WARNING, "The shadow configuration is not shown many requests"),
    "PCK018": Rule(_INFO, "Only a restart can put the shadow configuration into use"),
    "PCK019": Rule(_INFO, "No served request is kept for `epp explain`"),
    "PCK020": Rule(_INFO, "The picker follows: another replica leads"),
    # Flow control.
    "QUE001": Rule(_WARNING, "The pool counts as full"),
    "QUE002": Rule(_WARNING, "A request has waited for most of its time"),
    "QUE003": Rule(_WARNING, "A band is nearly full, from when on its requests are refused"),
    "QUE004": Rule(_WARNING, "All queues together are nearly full"),
    "QUE005": Rule(_ERROR, "Requests wait for a pool that is empty"),
    # KV events, as the picker sees them.
    "KVE001": Rule(_ERROR, "A defect keeps KV events from being received"),
    "KVE002": Rule(_WARNING, "An endpoint serves requests and publishes no KV events"),
    "KVE003": Rule(_WARNING, "The picker is not connected to the KV events of an endpoint"),
    "KVE004": Rule(_WARNING, "KV events are dropped, because their topics name no endpoint"),
    "KVE005": Rule(_WARNING, "KV events cannot be read"),
    "KVE006": Rule(_WARNING, "KV events were missed"),
    "KVE007": Rule(_WARNING, "KV events come, but no prompt matches them"),
    "KVE008": Rule(_WARNING, "Prompts cannot be tokenized, or the shared index cannot be asked"),
    "KVE009": Rule(_WARNING, "A defect has interrupted the reception of KV events"),
    # Pool.
    "POL001": Rule(_ERROR, "The picker knows no endpoint"),
    "POL002": Rule(_ERROR, "No endpoint has fresh metrics, so every decision is blind"),
    "POL003": Rule(_ERROR, "An endpoint was never scraped"),
    "POL004": Rule(_ERROR, "The metrics of an endpoint are stale"),
    "POL005": Rule(_WARNING, "The picker misses values on an endpoint's page"),
    "POL006": Rule(_WARNING, "Two endpoints have the same address"),
    "POL007": Rule(_WARNING, "Every endpoint has requests waiting"),
    "POL008": Rule(_ERROR, "The filters of a profile let no endpoint through"),
    "POL009": Rule(_ERROR, "A filter of a profile raises when it is given the pool"),
    # Engines.
    "ENG001": Rule(_ERROR, "An engine's metrics page cannot be read"),
    "ENG002": Rule(_WARNING, "An engine's metrics page cannot be read from here, though the picker reads it"),
    "ENG003": Rule(_ERROR, "A page lacks what the picker decides by: queue, running requests or KV cache use"),
    "ENG004": Rule(_WARNING, "A page lacks further values, or has wrong ones"),
    "ENG005": Rule(_WARNING, "An engine does not tell its KV block size"),
    "ENG006": Rule(_WARNING, "Engines of one pool have different block sizes"),
    "ENG007": Rule(_ERROR, "The precise prefix cache counts in another block size than an engine"),
    "ENG008": Rule(_WARNING, "LoRA adapters are scored, but an engine tells of none"),
    "ENG009": Rule(_WARNING, "An engine's clock and the one here differ"),
    "ENG010": Rule(_ERROR, "The port for KV events does not answer on an engine"),
    "ENG011": Rule(_ERROR, "The port for KV events does not speak ZeroMQ"),
    "ENG012": Rule(_WARNING, "The topic filter for KV events matches nothing that engines publish by default"),
    "ENG013": Rule(_WARNING, "The picker's mapping of metrics cannot be rebuilt here; the built-in one was used"),
    # Certificates and the picker's gRPC port.
    "CRT001": Rule(_ERROR, "A served certificate has expired"),
    "CRT002": Rule(_ERROR, "A served certificate is not valid yet"),
    "CRT003": Rule(_WARNING, "A served certificate expires soon"),
    "CRT004": Rule(_ERROR, "Envoy speaks TLS to the picker, which serves without"),
    "CRT005": Rule(_ERROR, "Envoy speaks to the picker without TLS, which serves with it"),
    "CRT006": Rule(_WARNING, "The picker's gRPC port cannot be reached from here"),
    "CRT007": Rule(_WARNING, "Envoy verifies the picker's certificate, which is signed by itself"),
    "CRT008": Rule(_ERROR, "The Secret of the picker's certificate is missing, or cannot be used"),
    "CRT009": Rule(_WARNING, "A certificate that is renewed in its Secret is not read again"),
    # Cluster: the pool, and what it names as its picker.
    "KUB001": Rule(_ERROR, "The InferencePool does not exist"),
    "KUB002": Rule(_ERROR, "InferencePool is not installed"),
    "KUB003": Rule(_WARNING, "A pool of this name exists in both API groups"),
    "KUB004": Rule(_ERROR, "The pool is being deleted"),
    "KUB005": Rule(_ERROR, "A gateway does not accept the pool"),
    "KUB006": Rule(_ERROR, "A gateway cannot resolve what the pool names"),
    "KUB007": Rule(_INFO, "No gateway has said anything about the pool"),
    "KUB010": Rule(_WARNING, "The pool names no picker"),
    "KUB011": Rule(_ERROR, "The Service that the pool names as its picker does not exist"),
    "KUB012": Rule(_ERROR, "The picker's Service is an ExternalName"),
    "KUB013": Rule(_ERROR, "The picker's Service has no such port"),
    "KUB014": Rule(_WARNING, "The port's `appProtocol` is not HTTP/2"),
    "KUB015": Rule(_ERROR, "The Service's port does not lead to where the picker listens"),
    "KUB016": Rule(_ERROR, "No picker behind the Service is ready"),
    "KUB018": Rule(_INFO, "Without a picker the gateway chooses endpoints by itself"),
    # Cluster: pods of the pool.
    "KUB030": Rule(_ERROR, "The pool's selector is empty"),
    "KUB031": Rule(_ERROR, "The pool's selector matches no pod"),
    "KUB032": Rule(_ERROR, "No pod of the pool is ready"),
    "KUB033": Rule(_WARNING, "Some pods of the pool are not ready"),
    "KUB034": Rule(_ERROR, "The pool's selector matches the picker's own pods"),
    "KUB035": Rule(_WARNING, "Pods belong to several pools"),
    "KUB036": Rule(_WARNING, "A target port is not among the ports that pods list"),
    "KUB037": Rule(_WARNING, "A pod's annotation leaves it none of the target ports"),
    "KUB038": Rule(_WARNING, "Labels of pods contradict each other about their role, or name none"),
    "KUB039": Rule(_WARNING, "A data-parallel rank serves on a port that is no target port"),
    "KUB040": Rule(_WARNING, "The picker's endpoints are not those of the pool"),
    # Cluster: routes, objectives and rewrites.
    "KUB050": Rule(_INFO, "No HTTPRoute names the pool"),
    "KUB051": Rule(_ERROR, "An HTTPRoute names a pool that does not exist"),
    "KUB052": Rule(_WARNING, "An HTTPRoute has a timeout that cuts long responses"),
    "KUB053": Rule(_ERROR, "A gateway does not accept an HTTPRoute to the pool, or cannot resolve it"),
    "KUB054": Rule(_WARNING, "An objective or rewrite names a pool that does not exist"),
    "KUB055": Rule(_WARNING, "An objective or rewrite names the pool in another API group, and has no effect"),
    "KUB056": Rule(_INFO, "Objectives or rewrites are for another pool"),
    "KUB057": Rule(_WARNING, "An objective or rewrite is hidden by one of the newer API group"),
    "KUB058": Rule(_ERROR, "An objective or rewrite cannot be used"),
    # Cluster: how the picker is deployed.
    "KUB070": Rule(_INFO, "Several replicas decide side by side"),
    "KUB071": Rule(_ERROR, "A rolling update of pickers that elect a leader never ends"),
    "KUB072": Rule(_ERROR, "No replica leads"),
    "KUB073": Rule(_ERROR, "Another picker leads"),
    "KUB074": Rule(_WARNING, "The picker requests no CPU or memory"),
    "KUB075": Rule(_WARNING, "The picker's CPU is limited to less than a core"),
    "KUB076": Rule(_WARNING, "The picker's memory limit is less than what it may hold"),
    "KUB077": Rule(_WARNING, "The picker is killed before it has drained"),
    "KUB078": Rule(_WARNING, "The liveness probe kills pickers that are only not ready"),
    "KUB079": Rule(_ERROR, "The picker behind the pool's Service serves another pool"),
    "KUB080": Rule(_WARNING, "The configuration is watched where it never changes"),
    "KUB081": Rule(_WARNING, "The picker was restarted"),
    "KUB082": Rule(_ERROR, "The picker's pools file cannot be used"),
    # Cluster: rights.
    "RBC001": Rule(_ERROR, "The picker lacks a right that it needs"),
    "RBC002": Rule(_WARNING, "The picker lacks a right without which it works less well"),
}


def finding(code: str, file: str, path: str, message: str, fix: str, value: object = None) -> Finding:
    """A finding of the catalogue.

    Args:
        code: a key of ``CATALOGUE``, which gives the severity.
        file: the address or file that was looked at.
        path: the place in it; empty for all of it.
        message: what is wrong and why it matters.
        fix: what to do.
        value: what was found there.
    """
    return Finding(code, path, message, fix, value, severity=CATALOGUE[code].severity, file=file)


def unique(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in their order, equal ones once."""
    kept: list[Finding] = []
    for found in findings:
        if found not in kept:
            kept.append(found)
    return kept
