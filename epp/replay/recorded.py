"""Real requests as a trace: when, what, and how long the answer was."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import orjson

from epp.replay.fields import FieldError, Line, required, seconds, shown, tokens
from epp.replay.load import RecordedRequest

MEMBERS = ("time_s", "path", "body", "output_tokens", "headers")
_JSON = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class RecordedBody:
    """A body as it was. Implements ``Content``."""

    data: bytes

    def body(self, model: str) -> bytes:  # noqa: ARG002 — it has its own
        """The recorded bytes."""
        return self.data

    def prompt(self) -> None:
        """To be read from the body."""
        return


def read(line: Line, number: int) -> RecordedRequest:
    """One line.

    Raises:
        FieldError: it cannot be used.
    """
    for name in line:
        if name not in MEMBERS:
            near = get_close_matches(name, MEMBERS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(MEMBERS)}"
            raise FieldError(f"there is no member {shown(name)}{hint}")
    path = required(line, "path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise FieldError(f"path must be a text that begins with /, is {shown(path)}")
    headers = _headers(line.get("headers", {}))
    if not any(name == "content-type" for name, _ in headers):
        headers = (*headers, _JSON)
    return RecordedRequest(
        number, seconds(line, "time_s"), path, headers, tokens(line, "output_tokens", 0), RecordedBody(_body(line))
    )


def _body(line: Line) -> bytes:
    body = required(line, "body")
    if isinstance(body, dict):
        return orjson.dumps(body)
    if isinstance(body, str) and body:
        return body.encode()
    raise FieldError(f"body must be an object, or the body's text, is {shown(body)}")


def _headers(given: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise FieldError(f"headers must be an object of texts, is {shown(given)}")
    return tuple((name.lower(), value) for name, value in given.items() if not name.startswith(":"))
