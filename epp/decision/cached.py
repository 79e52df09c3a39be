"""Cached prefixes of one request: what was predicted goes into its decision record, and is compared with what is reported."""

from __future__ import annotations

from epp.decision.flight import Flight
from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.keys import PrefixMatch
from epp.framework.results import SchedulingResult
from epp.framework.types import Api, Completion, Endpoint, EndpointId, InferenceRequest
from epp.scheduling.cached_prefix import MatchKey
from epp.telemetry.cache_truth import CacheTruth
from epp.telemetry.decision_record import PrefixRecord

_RENDERED = frozenset({Api.CHAT, Api.MESSAGES, Api.RESPONSES, Api.CONVERSATIONS})
"""APIs whose prompts a chat template makes."""
_logger = log.get(__name__)


def predictions(
    request: InferenceRequest, target: Endpoint | None, keys: tuple[MatchKey, ...], candidates: Candidates | None
) -> list[PrefixRecord]:
    """What each producer holds to be cached, on the endpoint that the request goes to and on the other candidates.

    Args:
        request: as its producers left it.
        target: where it goes; None = nowhere.
        keys: where producers write.
        candidates: among which it was decided; None = it was not.
    """
    records = []
    for key, matches in _written(request, keys):
        record = PrefixRecord(key.producer, target.host_port if target is not None else "")
        for endpoint in candidates or ():
            if (known := matches.get(endpoint.id)) is not None and known.match_blocks:
                record.matched[endpoint.host_port] = known.match_blocks
        match = matches.get(target.id) if target is not None else None
        if match is not None:
            record.matched_blocks, record.total_blocks = match.match_blocks, match.total_blocks
            record.block_size_tokens = match.block_size_tokens
        records.append(record)
    return records


def more_cached(request: InferenceRequest, keys: tuple[MatchKey, ...], endpoint: EndpointId, other: EndpointId) -> int | None:
    """Prompt tokens thought cached on ``endpoint``, less those on ``other``: of each the most that any producer found.

    Returns:
        None if no producer has looked.
    """
    written = _written(request, keys)
    if not written:
        return None
    most = [
        max(
            (found.match_blocks * found.block_size_tokens for _, matches in written if (found := matches.get(place))), default=0
        )
        for place in (endpoint, other)
    ]
    return most[0] - most[1]


def compare_cached(truth: CacheTruth, flight: Flight, result: SchedulingResult, completion: Completion) -> None:
    """Tell of a response that reports cached tokens.

    Where another endpoint has computed the prompt, the one that answered counts what it was sent as cached: nothing is told.
    """
    usage, request = completion.usage, flight.inference
    prefilled = result.targets_of(result.prefill)
    if not usage.prompt_tokens or (prefilled and prefilled[0].id != result.target.id):
        return
    served = completion.served
    for key, matches in _written(request, flight.used.pipeline.match_keys):
        predicted = truth.observe(key.producer, served, matches.get(served.id), usage, is_chat=request.body.api in _RENDERED)
        if flight.record is not None:
            _write_down(flight, key.producer, predicted, usage.cached_tokens)


def _written(request: InferenceRequest, keys: tuple[MatchKey, ...]) -> list[tuple[MatchKey, dict[EndpointId, PrefixMatch]]]:
    """The matches that producers wrote, without those that one has taken over from another."""
    found = [(key, matches) for key in keys if (matches := request.data.get(key)) is not None]
    if len(found) < 2:
        return found
    first = {id(matches): key for key, matches in reversed(found)}
    return [(key, matches) for key, matches in found if first[id(matches)] is key]


def _write_down(flight: Flight, producer: str, predicted_tokens: int, reported_tokens: int | None) -> None:
    assert flight.record is not None
    for record in flight.record.prefixes:
        if record.plugin == producer:
            record.predicted_tokens, record.reported_tokens = predicted_tokens, reported_tokens
    _logger.verbose(
        "Cached prefix",
        request_id=flight.inference.request_id,
        plugin=producer,
        predictedTokens=predicted_tokens,
        reportedTokens=reported_tokens,
    )
