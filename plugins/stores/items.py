"""Items of the Responses API: what clients send, what models answer, and how both are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast
from urllib.parse import parse_qs
from uuid import uuid4

from epp.errors import ErrorCode, RequestError
from epp.framework.types import Json

Item = dict[str, Json]

MAX_PAGE = 100
_DEFAULT_PAGE = 20
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def input_items(value: Json) -> list[Json]:
    """A request's ``input`` as items; a text is one message of the user."""
    if isinstance(value, list):
        return value
    return [{"type": "message", "role": "user", "content": value}] if isinstance(value, str) else [value]


def shown(item: Json, fallback_id: str) -> Item:
    """An item as it is listed: with an id and a type, a text as a part."""
    members = cast("Item", item) if isinstance(item, dict) else {"content": item}
    kind = members.get("type") or "message"
    listed: Item = {"id": members.get("id") or fallback_id, "type": kind, **{k: v for k, v in members.items() if v is not None}}
    if kind == "message":
        listed.setdefault("status", "completed")
        if isinstance(listed.get("content"), str):
            part = "output_text" if listed.get("role") == "assistant" else "input_text"
            more: Item = {"annotations": []} if part == "output_text" else {}
            listed["content"] = [{"type": part, "text": listed["content"], **more}]
    return listed


def new_id(kind: object) -> str:
    """A fresh id for an item of this type."""
    return f"{_PREFIXES.get(str(kind), 'item')}_{uuid4().hex}"


def page(items: Sequence[Item], query: str) -> Item:
    """One page of a list, as its query asks: ``limit`` (1 to 100), ``order`` (``desc``, ``asc``), ``after``.

    Raises:
        RequestError: BAD_REQUEST; the query is wrong.
    """
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _bad(f"order must be asc or desc, not {order!r}")
    limit = _limit(asked)
    ordered = list(items) if order == "asc" else list(reversed(items))
    if "after" in asked:
        ids = [item["id"] for item in ordered]
        if asked["after"] not in ids:
            raise _bad(f"after names no item of this list: {asked['after']!r}")
        ordered = ordered[ids.index(asked["after"]) + 1 :]
    data = ordered[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(ordered) > limit,
    }


def _limit(asked: Mapping[str, str]) -> int:
    text = asked.get("limit", str(_DEFAULT_PAGE))
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_PAGE):
        raise _bad(f"limit must be a number from 1 to {MAX_PAGE}, not {text!r}")
    return int(text)


def _bad(message: str) -> RequestError:
    return RequestError(ErrorCode.BAD_REQUEST, message)
