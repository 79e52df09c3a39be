"""Reading JSON request bodies: rules that all JSON parsers share.

The body is decoded once; unknown members are ignored, the bytes are forwarded as they came. Decoding accepts what Go's does:
of doubled keys the last one counts, invalid UTF-8 and lone surrogates are replaced, NaN and infinities are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

import orjson

from epp.errors import ErrorCode, RequestError

MAX_TOKEN_ID = 2**32 - 1
_BOM = b"\xef\xbb\xbf"


def bad_request(message: str) -> RequestError:
    """A 400 with this text."""
    return RequestError(ErrorCode.BAD_REQUEST, message)


def decode_object(body: memoryview, failure: str) -> dict[str, object]:
    """The JSON object of a body.

    Args:
        failure: how the error text begins.

    Raises:
        RequestError: BAD_REQUEST; the body is empty, no JSON, or another type than an object.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _decode_damaged(bytes(body), error, failure)
    if type(document) is not dict:
        raise bad_request(f"{failure}: expected an object, got {_json_type(document)}")
    return document


def _decode_damaged(body: bytes, error: orjson.JSONDecodeError, failure: str) -> object:
    """A second try for text that is JSON but no valid Unicode."""
    reason = str(error)
    if not body.strip():
        raise bad_request(f"{failure}: the body is empty") from error
    if ("surrogate" not in reason and "utf-8" not in reason.lower()) or body.startswith(_BOM):
        raise bad_request(f"{failure}: {reason}") from error
    try:
        return json.loads(body.decode("utf-8", "replace"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as second:
        raise bad_request(f"{failure}: {second}") from second


def _refuse_constant(text: str) -> NoReturn:
    msg = f"{text} is not JSON"
    raise ValueError(msg)


def _json_type(value: object) -> str:
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
    """Every value is an integer that a token id can be."""
    kinds = set(map(type, values))
    if kinds != {int} and not (kinds <= {int, float} and all(float(v).is_integer() for v in values)):  # type: ignore[arg-type]  # numbers
        return False
    low, high = min(values), max(values)  # type: ignore[type-var]  # numbers
    return low >= 0 and high <= MAX_TOKEN_ID  # type: ignore[operator]  # numbers
