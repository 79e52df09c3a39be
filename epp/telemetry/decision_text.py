"""A decision in words: one line for a response header, a page for a person, an answer to "why not that one"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from epp.telemetry.decision_record import DecisionRecord

MAX_SHORT = 1024
"""Characters of the short form; gateways limit the size of all headers together."""
_NOTHING = "-"
_SHOWN_FROM = 0.0005
"""Smaller differences of scores read as 0."""

Record = Mapping[str, Any]
"""A record as JSON (``DecisionRecord.as_json``)."""


def short_form(record: DecisionRecord) -> str:
    """``picked=...; profile=...; scores=...``, cut to what a header may hold."""
    profile = next((run for run in record.profiles if run.profile == record.primary), None)
    parts = [f"picked={','.join(record.picked) or 'none'}", f"candidates={len(record.candidates)}"]
    if record.primary:
        parts.append(f"profile={record.primary}")
    if profile is not None:
        best = sorted(profile.totals.items(), key=lambda entry: -entry[1])[:5]
        parts.append("scores=" + ",".join(f"{endpoint}={total:.4g}" for endpoint, total in best))
        parts += [f"dropped-by-{step.plugin}={len(step.dropped)}" for step in profile.filters if step.dropped]
    parts += [f"prefix={prefix.matched_blocks}/{prefix.total_blocks}" for prefix in record.prefixes if prefix.total_blocks]
    if record.admission is not None and record.admission.held_s:
        parts.append(f"held={record.admission.held_s:.3f}s")
    parts.append(f"took={record.took_s * 1e3:.2f}ms")
    text = "; ".join(parts)
    return text.encode("ascii", "replace").decode()[:MAX_SHORT]


def page(record: Record) -> str:
    """The whole record for a person: what was asked, a table of candidates for each profile, what became of it."""
    lines = [*_head(record), ""]
    lines += [_prefix(prefix) for prefix in record["prefixes"]]
    lines += [_dropped("screener", step) for step in record["screeners"]]
    for profile in record["profiles"]:
        lines += [*_profile(record, profile), ""]
    if not record["profiles"] and record["candidates"]:
        lines += [f"candidates: {', '.join(record['candidates'])}", ""]
    lines += _calls(record)
    lines += _outcome(record)
    return "\n".join(lines).rstrip() + "\n"


def why_not(record: Record, endpoint: str) -> str:
    """Why a request did not go to ``endpoint`` (``host:port`` or address), in sentences."""
    names = [name for name in _all_endpoints(record) if name == endpoint or name.rpartition(":")[0].strip("[]") == endpoint]
    if not names:
        known = ", ".join(_all_endpoints(record)) or "none"
        reason = "not in the pool, held back, or excluded by the data plane's hint"
        return f"{endpoint} was no candidate: {reason}.\nCandidates: {known}\n"
    return "\n".join(sentence for name in names for sentence in _reasons(record, name)) + "\n"


def _head(record: Record) -> Iterator[str]:
    model = record["model"] or _NOTHING
    if record["target_model"] and record["target_model"] != record["model"]:
        model += f" → {record['target_model']}"
    yield f"request {record['request_id'] or _NOTHING}  {record['path']}"
    flow = record["fairness_id"] or _NOTHING
    yield f"model {model}, priority {record['priority']}, fairness id {flow}; kept: {record['why']}"
    foretold, admission = record.get("flow_control"), record["admission"]
    if foretold is not None:
        yield f"flow control: {_foretold(foretold)}"
        if foretold["verdict"] == "wait":
            yield "if it went on now:"
    elif admission is not None:
        yield f"admission: {admission['outcome']}{_held(admission)}"
    if record["error"]:
        yield f"refused with {record['status']}: {record['error']}" if record["status"] else f"error: {record['error']}"
    elif record["picked"]:
        yield f"picked {', '.join(record['picked'])} (profile {record['primary'] or _NOTHING})"
    elif record["status"]:
        yield f"answered by the picker itself with {record['status']}"
    yield f"decided in {record['took_s'] * 1e3:.2f} ms"


def _foretold(foretold: Mapping[str, Any]) -> str:
    """What flow control would do with a request that nobody sent."""
    if foretold["verdict"] == "refuse":
        return f"would refuse it at once with {foretold['status']}"
    if foretold["verdict"] == "pass":
        return f"would let it pass at once (saturation {foretold['saturation']:.2f}, ceiling {foretold['ceiling']:.2f})"
    place = f"behind {foretold['ahead']} in band {foretold['priority']} and above"
    if not foretold["ahead"]:
        place = f"as the first in band {foretold['priority']} and above"
    text = f"would hold it {place}: {foretold['why']}"
    if foretold["may_evict"]:
        text += "; running requests of a lower priority may be ended for it"
    if foretold["expected_wait_s"] is not None:
        text += f"; some {foretold['expected_wait_s']:.1f} s at the rate of the last seconds"
    longest_s = foretold["longest_wait_s"]
    return text + ("; without limit" if longest_s is None else f"; refused after {longest_s:.3g} s")


def _held(admission: Mapping[str, Any]) -> str:
    if not admission["held_s"]:
        return ""
    behind = f" behind {admission['ahead']} others" if admission["ahead"] else ""
    return f", held for {admission['held_s']:.3f} s{behind}"


def _profile(record: Record, profile: Mapping[str, Any]) -> list[str]:
    """A profile's table: a row for each candidate, a column for each scorer."""
    lines = [f"profile {profile['profile']}" + (f": {profile['error']}" if profile["error"] else "")]
    dropped_by = {name: step["plugin"] for step in profile["filters"] for name in step["dropped"]}
    header = ["", "endpoint", "waiting", "running", "kv", "age", "prefix"]
    header += [f"{scorer['plugin']} ×{scorer['weight']:g}" for scorer in profile["scorers"]]
    rows = [[*header, "total"]]
    order = sorted(record["candidates"], key=lambda name: (name in dropped_by, -profile["totals"].get(name, 0.0)))
    rows += [_row(record, profile, name, dropped_by) for name in order]
    lines += [f"  {line}" for line in _table(rows)]
    lines += [f"  filter {step['plugin']} failed: {step['error']}" for step in profile["filters"] if step["error"]]
    lines += [f"  scorer {scorer['plugin']}: {scorer['error']}" for scorer in profile["scorers"] if scorer["error"]]
    lines += [
        f"  scorer {scorer['plugin']} returned what is no score: {scorer['raw']}"
        for scorer in profile["scorers"]
        if scorer["raw"]
    ]
    if profile["tied"]:
        lines.append(f"  equal totals: {', '.join(profile['tied'])}; {profile['picker']} chose among them")
    if profile["picked"]:
        lines.append(f"  {profile['picker']} picked {', '.join(profile['picked'])}")
    return lines


def _row(record: Record, profile: Mapping[str, Any], name: str, dropped_by: Mapping[str, str]) -> list[str]:
    inputs = record["inputs"].get(name, {})
    kv_cache, age = inputs.get("kv_cache_usage"), inputs.get("age_s")
    row = [
        "*" if name in profile["picked"] else "",
        name,
        _shown(inputs.get("waiting_queue")),
        _shown(inputs.get("running_requests")),
        _NOTHING if kv_cache is None else f"{kv_cache:.3f}",
        _NOTHING if age is None else f"{age * 1e3:.0f} ms",
        "/".join(str(prefix["matched"].get(name, 0)) for prefix in record["prefixes"]) or _NOTHING,
    ]
    if name in dropped_by:
        return [*row, f"dropped by {dropped_by[name]}"]
    for scorer in profile["scorers"]:
        score = scorer["scores"].get(name)
        row.append(_NOTHING if score is None else f"{score:.3f} → {scorer['weighted'][name]:.3f}")
    total = profile["totals"].get(name)
    return [*row, _NOTHING if total is None else f"{total:.3f}"]


def _calls(record: Record) -> Iterator[str]:
    failed = [call for call in record["calls"] if call["error"]]
    for call in failed:
        yield f"{call['extension_point']} {call['plugin']} ({call['type']}) failed: {call['error']}"
    slow = sorted(record["calls"], key=lambda call: -call["took_s"])[:3]
    if slow:
        parts = ", ".join(f"{call['plugin']} {call['took_s'] * 1e6:.0f} us" for call in slow)
        yield f"slowest of {len(record['calls'])} plugin calls: {parts}"


def _outcome(record: Record) -> Iterator[str]:
    predicted, outcome = record["predicted_cached_tokens"], record["outcome"]
    if outcome is None:
        if predicted is not None:
            yield f"cached prompt tokens: {predicted} expected"
        if record["picked"] and record["why"] != "rehearsed":
            yield "the response is not over"
        return
    first = f", first byte after {outcome['ttft_s']:.3f} s" if outcome["ttft_s"] is not None else ""
    took = f"in {outcome['duration_s']:.3f} s{first}"
    yield f"answered by {outcome['served']} with {outcome['status']} ({outcome['cause']}) {took}"
    yield f"tokens: {outcome['prompt_tokens'] or _NOTHING} in, {outcome['completion_tokens'] or _NOTHING} out"
    if predicted is not None or outcome["cached_tokens"] is not None:
        yield f"cached prompt tokens: {_shown(predicted)} expected, {_shown(outcome['cached_tokens'])} reported"


def _all_endpoints(record: Record) -> list[str]:
    """The candidates, and those that screeners dropped."""
    return list(dict.fromkeys([*record["candidates"], *(name for step in record["screeners"] for name in step["dropped"])]))


def _reasons(record: Record, name: str) -> Iterator[str]:
    for step in record["screeners"]:
        if name in step["dropped"]:
            yield f"{name} was dropped by the screener {step['plugin']}."
    for profile in record["profiles"]:
        yield from _reason(profile, name)
    if not record["profiles"] and record["error"]:
        yield f"nothing was scheduled: {record['error']}"


def _reason(profile: Mapping[str, Any], name: str) -> Iterator[str]:
    where = f"profile {profile['profile']}"
    if name in profile["picked"]:
        yield f"{where}: {name} was picked."
        return
    for step in profile["filters"]:
        if name in step["dropped"]:
            yield f"{where}: {name} was dropped by the filter {step['plugin']}, which kept {step['kept']}."
            return
    total = profile["totals"].get(name)
    if total is None or not profile["picked"]:
        if profile["error"]:
            yield f"{where}: {profile['error']}"
        return
    winner = profile["picked"][0]
    lead = profile["totals"][winner] - total
    if lead == 0:
        yield f"{where}: {name} had the same total as {winner} ({total:.3f}); {profile['picker']} chose among equals."
        return
    if lead < 0:
        more = f"{-lead:.3f} more than {winner}"
        yield f"{where}: {name} had {more}; {profile['picker']} does not always take the highest total."
        return
    yield f"{where}: {name} had a total of {total:.3f}, {lead:.3f} less than {winner}:"
    differences = [
        (scorer, scorer["weighted"].get(winner, 0.0) - scorer["weighted"].get(name, 0.0)) for scorer in profile["scorers"]
    ]
    for scorer, difference in sorted(differences, key=lambda entry: -entry[1]):
        if abs(difference) >= _SHOWN_FROM:
            ours, theirs = scorer["scores"].get(name, 0.0), scorer["scores"].get(winner, 0.0)
            yield f"  {scorer['plugin']}: {ours:.3f} against {theirs:.3f}, ×{scorer['weight']:g}: {-difference:+.3f}"


def _prefix(prefix: Mapping[str, Any]) -> str:
    if not prefix["total_blocks"]:
        return f"prefix: {prefix['plugin']} knows of none at {prefix['endpoint']}"
    size = f"{prefix['total_blocks']} blocks of {prefix['block_size_tokens']} tokens"
    return f"prefix of {size} ({prefix['plugin']})"


def _dropped(what: str, step: Mapping[str, Any]) -> str:
    dropped = f"dropped {', '.join(step['dropped'])}" if step["dropped"] else "dropped none"
    return f"{what} {step['plugin']} {dropped}" + (f" ({step['error']})" if step["error"] else "")


def _shown(value: object) -> str:
    return _NOTHING if value is None else str(value)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows with aligned columns; a row may end early."""
    columns = max(len(row) for row in rows)
    widths = [
        max((len(row[i]) for row in rows if len(row) > i and not (len(row) < columns and i == len(row) - 1)), default=0)
        for i in range(columns)
    ]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
