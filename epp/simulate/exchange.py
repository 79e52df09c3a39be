"""One HTTP request of a simulated server: reading its body, answering, streaming, failing on purpose."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from epp.simulate.faults import SLOW_S, FaultKind

Json = dict[str, Any]

_LINGER_RST = struct.pack("ii", 1, 0)
_JSON = "application/json"


class ApiFamily(StrEnum):
    """Whose error bodies a path has."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


_TYPES = {
    ApiFamily.OPENAI: {
        400: "BadRequestError",
        405: "MethodNotAllowedError",
        404: "NotFoundError",
        413: "RequestEntityTooLargeError",
    },
    ApiFamily.ANTHROPIC: {
        400: "invalid_request_error",
        405: "invalid_request_error",
        404: "not_found_error",
        413: "request_too_large",
    },
}
_OTHER_TYPES = {ApiFamily.OPENAI: "InternalServerError", ApiFamily.ANTHROPIC: "api_error"}


class ApiError(Exception):
    """The request is answered with this status and text.

    Args:
        status: HTTP status.
        message: for the client.
        param: the member of the body that is wrong.
    """

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    def body(self, family: ApiFamily) -> Json:
        """The body as vLLM writes it for this API."""
        kind = _TYPES[family].get(self.status, _OTHER_TYPES[family])
        if family is ApiFamily.ANTHROPIC:
            return {"type": "error", "error": {"type": kind, "message": self.message}}
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}


def bad_request(message: str, param: str | None = None) -> ApiError:
    """A 400."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, param)


def reset_connection(transport: asyncio.Transport | None) -> None:
    """Close at once with a TCP reset; what was not sent yet is lost."""
    if transport is None or transport.is_closing():
        return
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
    transport.abort()


@dataclass(frozen=True, slots=True)
class Handover:
    """The part that another engine has in a request."""

    keeps: bool = False
    """The blocks of the prompt are kept, to be fetched by another engine."""
    fetched_digest: str = ""
    """Another engine has computed the prompts with this digest, and their blocks were fetched; empty = not so."""


NO_HANDOVER = Handover()


class Exchange:
    """A request and the way to answer it.

    Args:
        request: what came.
        headers: set on every response.
        fault: what to do wrong, None for nothing.
        family: shape of error bodies.
        on_answered: called once a success has been written to its end.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        headers: Mapping[str, str],
        fault: FaultKind | None,
        family: ApiFamily,
        on_answered: Callable[[], None],
    ) -> None:
        self.request = request
        self.family = family
        self._headers = headers
        self._resets = fault in (FaultKind.RESET, FaultKind.METRICS_RESET)
        self._fault = fault
        self._on_answered = on_answered
        self._body: Json | None = None
        self.handover = NO_HANDOVER

    async def begin(self, error_status: Callable[[], int]) -> None:
        """Commit the faults that come before any work.

        Raises:
            ApiError: the request is to fail.
        """
        match self._fault:
            case FaultKind.HANG | FaultKind.METRICS_HANG:
                await asyncio.Event().wait()
            case FaultKind.SLOW | FaultKind.METRICS_SLOW:
                await asyncio.sleep(SLOW_S)
            case FaultKind.ERROR | FaultKind.METRICS_ERROR:
                raise ApiError(error_status(), "simulated failure")
            case _:
                pass

    async def json(self) -> Json:
        """The body, read once.

        Raises:
            ApiError: it is not a JSON object, or too long.
        """
        if self._body is not None:
            return self._body
        try:
            body = orjson.loads(await self.request.read())
        except orjson.JSONDecodeError as error:
            raise bad_request(f"the body is not valid JSON: {error}") from None
        except web.RequestPayloadError as error:
            raise bad_request(f"the body cannot be read: {error}") from None
        except web.HTTPRequestEntityTooLarge as error:
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error.text)) from None
        if not isinstance(body, dict):
            raise bad_request("the body must be a JSON object")
        self._body = body
        return body

    def replace_json(self, body: Json) -> None:
        """From now on this is the body."""
        self._body = body

    async def reply(self, body: Json | list[Json], status: int = HTTPStatus.OK) -> web.StreamResponse:
        """Answer with JSON."""
        return await self.reply_bytes(orjson.dumps(body), _JSON, status)

    async def reply_error(self, error: ApiError) -> web.StreamResponse:
        """Answer with an error body; never reset."""
        self._resets = False
        return await self.reply(error.body(self.family), error.status)

    async def relay(self, status: int, headers: Mapping[str, str], body: bytes) -> web.StreamResponse:
        """Answer with what another server said; its headers win over our own."""
        names = {name.lower() for name in headers}
        own = {name: value for name, value in self._headers.items() if name.lower() not in names}
        return web.Response(body=body, status=status, headers={**own, **headers})

    async def reply_bytes(self, body: bytes, content_type: str, status: int = HTTPStatus.OK) -> web.StreamResponse:
        """Answer with these bytes."""
        if self._resets:
            return await self._reset_within(body, content_type)
        if self._fault is FaultKind.METRICS_HALF:
            body = _first_half(body)
        response = web.Response(body=body, status=status, headers={**self._headers, "Content-Type": content_type})
        if status == HTTPStatus.OK:
            self._on_answered()
        return response

    async def stream(self) -> EventStream:
        """Begin an answer of server-sent events; the headers go out at once."""
        headers = {**self._headers, "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(self.request)
        return EventStream(self, response, self._resets, self._on_answered)

    def reset(self) -> ConnectionResetError:
        """Reset the connection; the result is for raising."""
        reset_connection(self.request.transport)
        return ConnectionResetError("simulated reset")

    async def _reset_within(self, body: bytes, content_type: str) -> web.StreamResponse:
        headers = {**self._headers, "Content-Length": str(len(body)), "Content-Type": content_type}
        response = web.StreamResponse(headers=headers)
        await response.prepare(self.request)
        await response.write(body[: len(body) // 2])
        raise self.reset()


class EventStream:
    """A response of server-sent events.

    Args:
        exchange: what it answers.
        response: prepared.
        resets: the connection is reset half-way.
        on_answered: called once the stream has ended well.
    """

    def __init__(self, exchange: Exchange, response: web.StreamResponse, resets: bool, on_answered: Callable[[], None]) -> None:
        self._exchange = exchange
        self._response = response
        self._resets = resets
        self._on_answered = on_answered

    async def write(self, data: bytes, done_ratio: float = 0.0) -> None:
        """Send complete events.

        Args:
            data: one event or several.
            done_ratio: share of the answer that is sent with them, 0 to 1; decides when a faulty server resets.

        Raises:
            ConnectionResetError: the client has gone, or the fault is committed.
        """
        if self._resets and done_ratio >= 0.5:
            raise self._exchange.reset()
        await self._response.write(data)

    async def end(self, data: bytes = b"") -> web.StreamResponse:
        """Send the last events and finish."""
        if self._resets:
            raise self._exchange.reset()
        await self._response.write_eof(data)
        self._on_answered()
        return self._response


def _first_half(page: bytes) -> bytes:
    half = page[: len(page) // 2]
    return half[:-1] if half.endswith(b"\n") else half


def event(body: Json, name: str | None = None) -> bytes:
    """One server-sent event; OpenAI's have no name, those of Anthropic and of the Responses API do."""
    head = b"event: %b\n" % name.encode() if name else b""
    return b"%bdata: %b\n\n" % (head, orjson.dumps(body))
