"""A decision as a record: who was a candidate, who dropped whom, how each scorer rated, who was picked, and what it took.

Made only for requests of which somebody wants one (debug log, explanations, shadow configurations); for all others nothing is
written down. The schema is stable: fields are added, never renamed, and ``SCHEMA`` grows when a meaning changes. Endpoints are
named by ``host:port``; there is no text of a prompt.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

SCHEMA = 1
"""Version of the schema."""


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
    """``admitted`` or ``refused``."""
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


@dataclass(slots=True)
class ProfileRecord:
    """One profile run."""

    profile: str
    filters: list[FilterRecord] = field(default_factory=list)
    scorers: list[ScoreRecord] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    """``host:port`` → weighted sum."""
    picker: str = ""
    picked: list[str] = field(default_factory=list)
    """``host:port``, best first."""
    error: str = ""


@dataclass(slots=True)
class PrefixRecord:
    """What one producer of prefix matches held to be cached where the request went."""

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


@dataclass(slots=True)
class DecisionRecord:
    """One decision, from the whole request to its answer."""

    schema: int = SCHEMA
    request_id: str = ""
    """Empty if the request was refused before it was understood."""
    path: str = ""
    model: str = ""
    """The name that the client asked for."""
    target_model: str = ""
    priority: int = 0
    fairness_id: str = ""
    candidates: list[str] = field(default_factory=list)
    """``host:port`` of all that could be picked, after the screeners."""
    screeners: list[ScreenRecord] = field(default_factory=list)
    admission: AdmissionRecord | None = None
    """None if the request did not get that far, or nothing had to let it in."""
    profiles: list[ProfileRecord] = field(default_factory=list)
    """In the order in which they ran."""
    primary: str = ""
    """Profile whose targets the request goes to."""
    picked: list[str] = field(default_factory=list)
    """``host:port`` as it was sent to the data plane, best first."""
    prefixes: list[PrefixRecord] = field(default_factory=list)
    """One for each producer of prefix matches that looked the prompt up; completed by the response."""
    calls: list[CallRecord] = field(default_factory=list)
    """Every call of a plugin: data producers and admitters among them."""
    status: int = 0
    """HTTP status of a refusal or a direct reply; 0 if the request was forwarded."""
    error: str = ""
    """Why it was refused, or that its stream ended before it was decided."""
    took_s: float = 0.0
    """From the whole request to its answer, waiting included."""

    def called(self, extension_point: str, plugin_type: str, plugin: str, took_s: float, error: str = "") -> None:
        """A plugin was called."""
        self.calls.append(CallRecord(extension_point, plugin_type, plugin, took_s, error))

    def as_json(self) -> dict[str, object]:
        """The record as JSON can hold it, under the names of its fields."""
        return asdict(self)
