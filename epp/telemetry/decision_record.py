"""A decision as a record: who was a candidate, who dropped whom, how each scorer rated, who was picked, and what it took.

Made only for requests of which somebody wants one (``Why``); for all others nothing is written down. The schema is stable:
fields are added, never renamed, and ``SCHEMA`` grows when a meaning changes. Endpoints are named by ``host:port``; there is no
text of a prompt.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA = 1
"""Version of the schema."""


class Why(StrEnum):
    """Why a record is made."""

    NOTHING = ""
    """It is not."""
    LOG = "log"
    """The debug log wants it; it is not kept."""
    SHARE = "share"
    """It is one of the share that is always kept."""
    ASKED = "asked"
    """The request asked to be explained."""
    REFUSED = "refused"
    """Our own answer was an error, or the decision failed."""
    FAILED = "failed"
    """The model server's answer was an error, or the stream broke."""
    REHEARSED = "rehearsed"
    """Nobody sent the request; somebody asked what would become of it."""


@dataclass(slots=True)
class CallRecord:
    """One call of a plugin, in the order of the calls."""

    extension_point: str
    """As in the metrics label: ``Filter``, ``Scorer``, ``Screener``, ``PreRequest`` and so on."""
    type: str
    plugin: str
    took_s: float
    error: str = ""
    """What it raised; also a refusal."""
    after_s: float = 0.0
    """When it began, since the record's ``at_s``."""


@dataclass(slots=True)
class ScreenRecord:
    """What one screener kept of all candidates."""

    plugin: str
    dropped: list[str]
    """``host:port`` of the candidates it dropped, in candidate order."""
    kept: int
    error: str = ""


@dataclass(slots=True)
class AdmissionRecord:
    """How the request was let in."""

    outcome: str
    """``admitted``, ``refused``, or ``withdrawn``: its client left while it was held."""
    held_s: float = 0.0
    """How long it was held; 0 = not at all."""
    error: str = ""
    ahead: int = 0
    """Requests of its priority and above that waited when it came."""


@dataclass(slots=True)
class FilterRecord:
    """What one filter did."""

    plugin: str
    dropped: list[str]
    """``host:port`` of the candidates it dropped, in candidate order."""
    kept: int
    error: str = ""


@dataclass(slots=True)
class ScoreRecord:
    """How one scorer rated."""

    plugin: str
    weight: float
    scores: dict[str, float]
    """``host:port`` → score in [0, 1] as it was counted, before weighting."""
    error: str = ""
    raw: dict[str, float] = field(default_factory=dict)
    """What the scorer returned, where that was not in [0, 1] and so was not counted as it was; NaN is left out."""


@dataclass(slots=True)
class ProfileRecord:
    """One profile run."""

    profile: str
    filters: list[FilterRecord] = field(default_factory=list)
    scorers: list[ScoreRecord] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    """``host:port`` → weighted sum."""
    tied: list[str] = field(default_factory=list)
    """The candidates that share the highest total, if there are several: between them the picker chose by its own rule."""
    picker: str = ""
    picked: list[str] = field(default_factory=list)
    """``host:port``, best first."""
    error: str = ""
    after_s: float = 0.0
    """When it began, since the record's ``at_s``."""
    took_s: float = 0.0


@dataclass(slots=True)
class InputRecord:
    """What was known of a candidate when it was judged; None = never read."""

    waiting_queue: int | None
    running_requests: int | None
    kv_cache_usage: float | None
    age_s: float | None
    """Since these were scraped."""


@dataclass(slots=True)
class OutcomeRecord:
    """What became of the request after it was sent."""

    cause: str
    """``natural``, ``client-disconnect``, ``evicted`` or ``error``."""
    status: int
    """HTTP status of the response; 0 if none came."""
    served: str
    """``host:port`` of the endpoint that answered, as the data plane said, else of the target."""
    ttft_s: float | None
    duration_s: float
    response_bytes: int
    streaming: bool
    prompt_tokens: int
    """0 = the model server did not say, also for completion tokens."""
    completion_tokens: int
    cached_tokens: int | None
    """Prompt tokens that the model server had cached; None = it did not say."""

    @property
    def is_good(self) -> bool:
        """The model server answered, the client got all of it."""
        return self.cause == "natural" and self.status < 400


@dataclass(slots=True)
class PrefixRecord:
    """What one producer of prefix matches held to be cached, and where the request went."""

    plugin: str
    endpoint: str
    """``host:port``."""
    matched_blocks: int = 0
    total_blocks: int = 0
    """Of the prompt, or of what was looked up; 0 if the endpoint holds nothing."""
    block_size_tokens: int = 0
    predicted_tokens: int | None = None
    """Of the prompt's tokens, for the endpoint that answered; None until a response has reported its cached tokens."""
    reported_tokens: int | None = None
    """What that response reported."""
    matched: dict[str, int] = field(default_factory=dict)
    """``host:port`` of each candidate that holds some → leading blocks found."""


@dataclass(slots=True)
class DecisionRecord:
    """One decision, from the whole request to its answer."""

    schema: int = SCHEMA
    why: Why = Why.NOTHING
    """Why there is this record."""
    at_s: float = field(default_factory=time.time)
    """When its decision began, Unix time."""
    request_id: str = ""
    """Empty if the request came without one and was refused before it was understood."""
    path: str = ""
    model: str = ""
    """The name that the client asked for."""
    target_model: str = ""
    priority: int = 0
    fairness_id: str = ""
    candidates: list[str] = field(default_factory=list)
    """``host:port`` of all that could be picked, after the screeners."""
    inputs: dict[str, InputRecord] = field(default_factory=dict)
    """Of each candidate, by ``host:port``."""
    prefixes: list[PrefixRecord] = field(default_factory=list)
    """One for each producer of prefix matches that looked the prompt up; completed by the response."""
    screeners: list[ScreenRecord] = field(default_factory=list)
    admission: AdmissionRecord | None = None
    """None if the request did not get that far, or nothing had to let it in."""
    profiles: list[ProfileRecord] = field(default_factory=list)
    """In the order in which they ran."""
    primary: str = ""
    """Profile whose targets the request goes to."""
    picked: list[str] = field(default_factory=list)
    """``host:port`` as it was sent to the data plane, best first."""
    prefill: list[str] = field(default_factory=list)
    """``host:port`` of the endpoint that computes the prompt, if it is another one."""
    encode: list[str] = field(default_factory=list)
    """``host:port`` of the endpoints that encode media, if these are others."""
    calls: list[CallRecord] = field(default_factory=list)
    """Every call of a plugin: data producers and admitters among them."""
    status: int = 0
    """HTTP status of a refusal or a direct reply; 0 if the request was forwarded."""
    error: str = ""
    """Why it was refused, or that its stream ended before it was decided."""
    took_s: float = 0.0
    """From the whole request to its answer, waiting included."""
    outcome: OutcomeRecord | None = None
    """None while the response runs, and for a request that was not forwarded."""

    def called(self, extension_point: str, plugin_type: str, plugin: str, took_s: float, error: str = "") -> None:
        """A plugin was called."""
        self.calls.append(CallRecord(extension_point, plugin_type, plugin, took_s, error, self.since_s() - took_s))

    def since_s(self) -> float:
        """Seconds since its beginning."""
        return time.time() - self.at_s

    def as_json(self) -> dict[str, object]:
        """The record as JSON can hold it, under the names of its fields, with what follows from them."""
        return completed(asdict(self))


def completed(shown: dict[str, Any]) -> dict[str, object]:
    """A record as JSON with what follows from it: what each scorer added to the totals, the tokens that were thought cached.

    Args:
        shown: the fields; changed in place.
    """
    for profile in shown["profiles"]:
        for scorer in profile["scorers"]:
            scorer["weighted"] = {endpoint: score * scorer["weight"] for endpoint, score in scorer["scores"].items()}
    shown["predicted_cached_tokens"] = _predicted_cached_tokens(shown)
    return shown


def _predicted_cached_tokens(shown: Mapping[str, Any]) -> int | None:
    """Prompt tokens that the first picked endpoint was thought to hold; None if nobody looked."""
    if not shown["prefixes"] or not shown["picked"]:
        return None
    return max(int(prefix["matched_blocks"]) * int(prefix["block_size_tokens"]) for prefix in shown["prefixes"])
