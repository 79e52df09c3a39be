"""Reading JSON request bodies: rules that all JSON parsers share.

The body is decoded once, a long one only as far as somebody reads it; unknown members are ignored, the bytes are forwarded as
they came. Decoding accepts what Go's does: of doubled keys the last one counts, invalid UTF-8 and lone surrogates are replaced,
NaN and infinities are refused.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import cast

import orjson

from epp.errors import ErrorCode, RequestError
from epp.framework.types import Json

MAX_TOKEN_ID = 2**32 - 1
_FOREIGN = {
    b"\xef\xbb\xbf": "the body begins with a byte order mark; send UTF-8 without one",
    b"\xff\xfe": "the body is UTF-16; send UTF-8",
    b"\xfe\xff": "the body is UTF-16; send UTF-8",
    b"\x1f\x8b": "the body is compressed with gzip; say so in content-encoding",
    b"\x28\xb5\x2f\xfd": "the body is compressed with zstd; say so in content-encoding",
}
"""How bodies begin that are no JSON for a reason that can be named."""
_CONSTANT = re.compile("-?(?:NaN|Infinity)")
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Any escape of a JSON string: a pair of surrogates, a surrogate alone, or another."""


LONG_BODY_BYTES = 8 * 1024
"""Shorter bodies are decoded faster than they are cut."""

Decode = Callable[[], Mapping[str, Json]]
Decoder = Callable[[memoryview], Mapping[str, Json]]


def _outline() -> Callable[[memoryview], bytes | None] | None:
    try:
        found: Callable[[memoryview], bytes | None] | None = getattr(import_module("epp_native"), "outline", None)
    except ImportError:
        return None
    return found


_OUTLINE = _outline()
"""Cuts long bodies; None where the extension is not installed."""


def bad_request(message: str) -> RequestError:
    """A 400 with this text."""
    return RequestError(ErrorCode.BAD_REQUEST, message)


def read_object(body: memoryview, failure: str) -> tuple[dict[str, object], Decode | None, Decoder | None]:
    """The JSON object of a body, what decodes it as a whole if long texts in it were cut, and else what decodes it again.

    These are ``outline``, ``decode`` and ``decode_again`` of ``ParsedBody``.

    Args:
        failure: how the error text begins.

    Raises:
        RequestError: as ``decode_object``.
    """
    if _OUTLINE is not None and len(body) >= LONG_BODY_BYTES:
        cut = _OUTLINE(body)
        if cut is not None:
            return orjson.loads(cut), partial(orjson.loads, body), None
    document, is_damaged = _decoded(body, failure)
    return document, None, None if is_damaged else orjson.loads


def decode_object(body: memoryview, failure: str) -> dict[str, object]:
    """The JSON object of a body.

    Args:
        failure: how the error text begins.

    Raises:
        RequestError: BAD_REQUEST; the body is empty, no JSON, or another type than an object.
    """
    return _decoded(body, failure)[0]


def _decoded(body: memoryview, failure: str) -> tuple[dict[str, object], bool]:
    """The object, and whether that took a second try."""
    is_damaged = False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document, is_damaged = _decode_damaged(bytes(body), _reason(error), failure), True
    if type(document) is not dict:
        raise bad_request(f"{failure}: expected an object, got {json_type(document)}")
    return document, is_damaged


def _decode_damaged(body: bytes, reason: str, failure: str) -> object:
    """A second try for text that is JSON but no valid Unicode: what stands for no character becomes U+FFFD.

    Args:
        reason: why the first one failed.
    """
    if not body.strip():
        raise bad_request(f"{failure}: the body is empty")
    if hint := next((hint for start, hint in _FOREIGN.items() if body.startswith(start)), ""):
        raise bad_request(f"{failure}: {hint}")
    if "surrogate" not in reason and "UTF-8" not in reason:
        raise bad_request(f"{failure}: {reason}")
    text = _ESCAPE.sub(lambda escape: "\\ufffd" if escape["lone"] else escape[0], body.decode("utf-8", "replace"))
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"{failure}: {_reason(error)}") from error


def _reason(error: orjson.JSONDecodeError) -> str:
    if constant := _CONSTANT.search(error.doc, max(error.pos - 1, 0), error.pos + len("Infinity")):
        return f"{constant[0]} at character {error.pos} is no JSON; leave the member out or send null"
    return str(error)


def json_type(value: object) -> str:
    """What a decoded value is in JSON, with its article."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


def model_of(document: Mapping[str, object]) -> str:
    """The model name; "" if it is missing or no string."""
    model = document.get("model")
    return model if type(model) is str else ""


def output_cap(document: Mapping[str, object], keys: Sequence[str]) -> int | None:
    """The first usable limit of output tokens: a number >= 0 without fraction."""
    for key in keys:
        value = document.get(key)
        if type(value) is int and value >= 0:
            return value
        if type(value) is float and value >= 0 and value.is_integer():
            return int(value)
    return None


def all_token_ids(values: list[object]) -> bool:
    """There are values, and every one is an integer that a token id can be."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return _fit(cast("list[int]", values))
    if not kinds or not kinds <= {int, float}:
        return False
    numbers = cast("list[int | float]", values)
    if min(numbers) < 0 or max(numbers) > MAX_TOKEN_ID:
        return False
    return all(float(number).is_integer() for number in numbers)


def _fit(numbers: list[int]) -> bool:
    """Each fits 32 bits, unsigned; found by one pass, as prompts have many."""
    try:
        array("I", numbers)
    except OverflowError:
        return False
    return True
