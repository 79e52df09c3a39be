"""Token usage of SGLang's native ``/generate``: in ``meta_info``, of streams in that of the last event.

Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers/sglanghttp/sglanghttp.go
"""

from __future__ import annotations

from epp.extproc.usage import Block, Dialect, NoUsage, UsageReader, number, usage_reader
from epp.seam import ResponseHead


def sglang_usage(head: ResponseHead) -> UsageReader | NoUsage:
    """Reader of ``/generate``."""
    return usage_reader(_SGLANG, head)


def _of_body(document: dict[str, object]) -> Block | None:
    info = document.get("meta_info")
    if not isinstance(info, dict):
        return None
    if info.get("prompt_tokens") is None and info.get("completion_tokens") is None:
        return None
    cached = info.get("cached_tokens")
    return Block(
        prompt_tokens=number(info.get("prompt_tokens")),
        completion_tokens=number(info.get("completion_tokens")),
        total_tokens=0,
        cached_tokens=None if cached is None else number(cached),
    )


def _of_event(document: dict[str, object]) -> Block | None:
    """Counts grow from event to event; those of the event that names a reason to finish are complete."""
    info = document.get("meta_info")
    if not isinstance(info, dict) or info.get("finish_reason") is None:
        return None
    return _of_body(document)


_SGLANG = Dialect(
    of_body=_of_body, of_event=_of_event, member="meta_info", wanted=b"finish_reason", dull=b'"finish_reason":null'
)
