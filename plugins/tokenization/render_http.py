"""RenderHttp: let a vLLM server render and tokenize, over HTTP.

Source: vllm-project/vllm: vllm/entrypoints/serve/render; llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/
tokenizer/vllm_http.go
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import aiohttp
import orjson

from epp.framework.keys import MediaFeature, TokenizedPrompt
from epp.framework.types import Api, Json, ParsedBody
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.chat import Chat, Texts, prompt_of
from plugins.tokenization.features import media_features

COMPLETIONS, CHAT = "/v1/completions/render", "/v1/chat/completions/render"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Some eight million tokens."""
_MOST_ERROR_BYTES = 1024
"""Of an error's body that are logged."""
_MOST_CONNECTIONS = 64


class RenderHttp:
    """Sends bodies as the client wrote them, with the name of the base model.

    Args:
        url: without a path.
        model: the base model's name there.
        timeout_s, media_timeout_s: of a call without and with media.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float, media_timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._timeout_s = timeout_s
        self._media_timeout_s = media_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Nothing has to be prepared: connections are made by requests."""

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def tokenize(self, body: ParsedBody) -> TokenizedPrompt | None:
        """What the server makes of the prompt, media included; None if there is none.

        Raises:
            TokenizationError: the server cannot be reached in time, refuses, or answers something else.
        """
        prompt = prompt_of(body)
        if prompt is None:
            return None
        timeout_s = self._media_timeout_s if isinstance(prompt, Chat) and prompt.has_media else self._timeout_s
        document = {**_document(body, prompt), "model": self._model}
        if isinstance(prompt, Texts):
            answers = _list(await self._post(COMPLETIONS, document, timeout_s))
            first, *more = [_ids(answer) for answer in answers]
            return TokenizedPrompt(first, is_exact=True, model=self._model, further=tuple(more))
        answer = await self._post(CHAT, document, timeout_s)
        return TokenizedPrompt(_ids(answer), is_exact=True, model=self._model, media=_media(answer))

    def debug_state(self) -> dict[str, object]:
        """Whom it asks."""
        return {"backEnd": "vllm", "url": self._url}

    async def _post(self, path: str, document: Mapping[str, Json], timeout_s: float) -> Json:
        session = self._session or self._open()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = self._url + path
        try:
            async with session.post(url, data=orjson.dumps(document), timeout=timeout) as response:
                if not 200 <= response.status < 300:
                    text = (await response.content.read(_MOST_ERROR_BYTES)).decode(errors="replace")
                    raise TokenizationError(f"status {response.status} from {url}: {text}")
                return orjson.loads(await _body(response))
        except TimeoutError as error:
            raise TokenizationError(f"no whole answer within {timeout_s:g} s from {url}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TokenizationError(f"{url}: {type(error).__name__}: {error}") from error

    def _open(self) -> aiohttp.ClientSession:
        """The session belongs to the running loop, so it cannot exist before the first call."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS, keepalive_timeout=90.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "User-Agent": "endpoint-picker"},
        )
        return self._session


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise TokenizationError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _document(body: ParsedBody, prompt: Texts | Chat) -> Mapping[str, Json]:
    """The body as it came, where the server knows its form."""
    if body.api in (Api.COMPLETIONS, Api.CHAT):
        return body.document
    if isinstance(prompt, Texts):
        return {"prompt": list(prompt.prompts) if len(prompt.prompts) > 1 else prompt.prompts[0]}
    options: dict[str, Json] = {"tools": prompt.tools} if prompt.tools else {}
    if not prompt.add_generation_prompt:
        options["add_generation_prompt"] = False
    return {"messages": prompt.messages, **options}


def _list(answer: Json) -> Sequence[Json]:
    if not isinstance(answer, list) or not answer:
        raise TokenizationError("the answer is not a list of prompts")
    return answer


def _ids(answer: Json) -> Sequence[int]:
    ids = answer.get("token_ids") if isinstance(answer, dict) else None
    try:
        return array("I", ids)  # type: ignore[arg-type]  # whatever it is
    except (TypeError, OverflowError) as error:
        raise TokenizationError("the answer has no token_ids") from error


def _media(answer: Json) -> tuple[MediaFeature, ...]:
    features = answer.get("features") if isinstance(answer, dict) else None
    if not isinstance(features, dict):
        return ()
    hashes, places = features.get("mm_hashes"), features.get("mm_placeholders")
    if not isinstance(hashes, dict) or not isinstance(places, dict):
        return ()
    try:
        ranges = {
            modality: [(int(item["offset"]), int(item["length"])) for item in items] for modality, items in places.items()
        }
        return media_features(hashes, ranges)
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizationError(f"the answer's features cannot be read: {error}") from error
