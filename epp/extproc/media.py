"""What kind of body the response headers announce."""

from __future__ import annotations

from epp.seam import ResponseHead


def media_type(head: ResponseHead) -> str:
    """The media type without parameters, lower case; empty if there is none."""
    return (head.headers.get("content-type") or "").partition(";")[0].strip().lower()


def is_event_stream(media: str) -> bool:
    """Whether the body is a stream of server-sent events."""
    return media == "text/event-stream"


def is_json(media: str) -> bool:
    """Whether the body is JSON, also with a structured suffix or line by line."""
    return "json" in media


def is_encoded(head: ResponseHead) -> bool:
    """Whether the body is compressed, so that nothing in it can be read or replaced."""
    encoding = (head.headers.get("content-encoding") or "").strip().lower()
    return encoding not in ("", "identity")
