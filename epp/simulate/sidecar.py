"""The proxy before a decode server: lets others encode media and compute the prompt, then goes on with what they made.

Source: llm-d-router: pkg/sidecar/proxy, docs/disaggregation.md.
"""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
import orjson
from aiohttp import web

from epp.simulate.exchange import ApiError, Exchange, Json, bad_request
from epp.simulate.options import ServerOptions
from epp.simulate.transfer_params import MEMBER, PREFILL_ONLY, transfer_params

PREFILL_HEADERS = ("x-prefiller-host-port", "mif-prefill-endpoint")
ENCODE_HEADERS = ("x-encoder-hosts-ports", "mif-encode-endpoints")
"""Two families: llm-d's, Heimdall's."""
CHAT = "/v1/chat/completions"
_LIMITS = {"/v1/responses": ("max_output_tokens",), "/v1/messages": ("max_tokens",), "/v1/completions": ("max_tokens",)}
_CHAT_LIMITS = ("max_tokens", "max_completion_tokens")
_MEDIA = frozenset({"image_url", "audio_url", "video_url", "input_audio"})
_RETRIED = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_HANDED_ON = ("authorization", "traceparent", "tracestate")
_NOT_RELAYED = frozenset({"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"})


class RefusedError(Exception):
    """Another server did not do its part: its answer is what the client is told.

    Args:
        status: HTTP status.
        headers: that concern the client.
        body: as it came.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(frozen=True, slots=True)
class Stages:
    """Who does what besides this server."""

    prefill: str = ""
    """``host:port``; empty = the prompt is computed here."""
    encode: tuple[str, ...] = ()


def stages_of(request: web.BaseRequest, options: ServerOptions, address: str) -> Stages:
    """Read the headers.

    Args:
        request: whose headers are read.
        options: of this server.
        address: of this server, ``host:port``.

    Raises:
        ApiError: 400, they are malformed, contradict each other or do not belong here.
    """
    prefill = _endpoints(request, PREFILL_HEADERS)[:1]
    encode = _endpoints(request, ENCODE_HEADERS)
    stages = Stages(prefill[0] if prefill else "", tuple(encode))
    if (prefill or encode) and options.stages and "decode" not in options.stages:
        given = PREFILL_HEADERS if prefill else ENCODE_HEADERS
        raise bad_request(f"{given[0]} is for servers that decode; this one's role is {'-'.join(sorted(options.stages))}")
    if stages.prefill == address:
        raise bad_request(f"{PREFILL_HEADERS[0]} names {address}, which is this server itself")
    return stages


def _endpoints(request: web.BaseRequest, names: tuple[str, str]) -> list[str]:
    headers = request.headers
    found = {name: ",".join(headers.getall(name)) for name in names if name in headers}
    if len(set(found.values())) > 1:
        raise bad_request(f"{names[0]} is {found[names[0]]}, but {names[1]} is {found[names[1]]}")
    value = next(iter(found.values()), "")
    endpoints = [each.strip() for each in value.split(",") if each.strip()]
    if found and not endpoints:
        raise bad_request(f"{next(iter(found))} is empty")
    for endpoint in endpoints:
        if not _is_endpoint(endpoint):
            raise bad_request(f"{next(iter(found))} has {endpoint!r}, which is not host:port")
    return endpoints


def _is_endpoint(text: str) -> bool:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) or "/" in host or "@" in host:
        return False
    if not host.startswith("["):
        return bool(host) and ":" not in host
    try:
        return host.endswith("]") and ipaddress.ip_address(host[1:-1]).version == 6
    except ValueError:
        return False


def media_of(body: Json) -> list[Json]:
    """The media of a chat: each URL once, inline data as often as they come."""
    seen: set[str] = set()
    media = []
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict) or part.get("type") not in _MEDIA:
                continue
            source = part.get(part["type"])
            url = source.get("url") if isinstance(source, dict) else None
            if isinstance(url, str) and not url.startswith("data:"):
                if url in seen:
                    continue
                seen.add(url)
            media.append(part)
    return media


class Sidecar:
    """Calls the other servers of a request.

    Args:
        session: open as long as this is used.
        options: of this server.
    """

    def __init__(self, session: aiohttp.ClientSession, options: ServerOptions) -> None:
        self._session = session
        self._options = options.disaggregation

    async def run(self, exchange: Exchange, stages: Stages) -> None:
        """Let the others do their part; the body of the request then says where the prompt's blocks are.

        Raises:
            ApiError: 400, the request contradicts its headers.
            RefusedError: another server failed.
        """
        body = await exchange.json()
        path = exchange.request.path
        request_id = str(uuid.uuid4())
        forwarded = {name: exchange.request.headers[name] for name in _HANDED_ON if name in exchange.request.headers}
        if stages.encode and path == CHAT:
            await self._encode(stages.encode, body, forwarded, request_id)
        if stages.prefill:
            if transfer_params(body).decodes_elsewhere or transfer_params(body).prefilled:
                raise bad_request(f"the request has {MEMBER}, but its prompt is to be computed by {stages.prefill}", MEMBER)
            answer = await self._prefill(stages.prefill, path, body, {**forwarded, "x-request-id": request_id})
            exchange.replace_json({**body, MEMBER: answer.get(MEMBER)})

    async def _encode(self, hosts: Sequence[str], body: Json, headers: Mapping[str, str], request_id: str) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, item in enumerate(media_of(body)):
                    alone = {**_shortened(body, _CHAT_LIMITS), "messages": [{"role": "user", "content": [item]}]}
                    named = {**headers, "x-request-id": f"{request_id}-enc-{index}"}
                    group.create_task(self._post(hosts[index % len(hosts)], CHAT, alone, named))
        except* (RefusedError, ApiError) as failed:
            raise failed.exceptions[0] from None

    async def _prefill(self, host: str, path: str, body: Json, headers: Mapping[str, str]) -> Json:
        alone = {**_shortened(body, _LIMITS.get(path, _CHAT_LIMITS)), MEMBER: PREFILL_ONLY}
        left = self._options.prefill_retries
        while True:
            try:
                return await self._post(host, path, alone, headers)
            except (RefusedError, ApiError) as refused:
                if not left or refused.status not in _RETRIED:
                    raise
            left -= 1
            await asyncio.sleep(self._options.retry_backoff_s)

    async def _post(self, host: str, path: str, body: Json, headers: Mapping[str, str]) -> Json:
        headers = {**headers, "Content-Type": "application/json"}
        try:
            async with self._session.post(f"http://{host}{path}", data=orjson.dumps(body), headers=headers) as response:
                text = await response.read()
                if response.status != HTTPStatus.OK:
                    kept = {name: value for name, value in response.headers.items() if name.lower() not in _NOT_RELAYED}
                    raise RefusedError(response.status, kept, text)
                answer = orjson.loads(text)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            message = f"{host} gave no answer: {type(error).__name__}: {error}"
            raise ApiError(HTTPStatus.BAD_GATEWAY, message) from error
        return answer if isinstance(answer, dict) else {}


def _shortened(body: Json, limits: Sequence[str]) -> Json:
    """The same request for one token, not streamed."""
    kept = {name: value for name, value in body.items() if name != "stream_options"}
    return {**kept, "stream": False, **dict.fromkeys(limits, 1)}
