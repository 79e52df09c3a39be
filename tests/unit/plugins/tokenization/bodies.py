"""Bodies of requests, as parsers make them."""

from __future__ import annotations

from typing import Any

from epp.framework.types import Api, ParsedBody


def chat(*contents: Any, **members: Any) -> ParsedBody:
    """A chat whose messages are a user's, or are given whole."""
    messages = [content if isinstance(content, dict) else {"role": "user", "content": content} for content in contents]
    return ParsedBody(Api.CHAT, {"model": "m", "messages": messages, **members})


def completion(prompt: Any, **members: Any) -> ParsedBody:
    """A completion."""
    return ParsedBody(Api.COMPLETIONS, {"model": "m", "prompt": prompt, **members})


def anthropic(*messages: Any, **members: Any) -> ParsedBody:
    """Anthropic messages."""
    return ParsedBody(Api.MESSAGES, {"model": "m", "messages": list(messages), **members})


def responses(items: Any, **members: Any) -> ParsedBody:
    """A request of the Responses API."""
    return ParsedBody(Api.RESPONSES, {"model": "m", "input": items, **members})


def image(url: str = "http://x/y.png") -> dict[str, Any]:
    """A content part."""
    return {"type": "image_url", "image_url": {"url": url}}
