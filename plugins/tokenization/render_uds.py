"""RenderUds: a tokenizer service beside the picker, over gRPC on a Unix socket, as llm-d deploys it.

Source: llm-d-kv-cache: api/tokenizerpb/tokenizer.proto, pkg/tokenization/uds_tokenizer.go
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from epp.framework import log
from epp.framework.handle import Runtime
from epp.framework.keys import TokenizedPrompt
from epp.framework.types import ParsedBody
from plugins.tokenization import tokenizer_messages as messages
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.chat import Chat, prompt_of
from plugins.tokenization.features import media_features
from plugins.tokenization.tokenizer_messages import Answer

if TYPE_CHECKING:
    from grpc.aio import Channel, UnaryUnaryMultiCallable

_logger = log.get(__name__)

SERVICE = "/tokenization.TokenizationService/"
TIMEOUT_S, MEDIA_TIMEOUT_S = 5.0, 30.0
"""Of a call without and with media, as the Go client has them."""
_MOST_MESSAGE_BYTES = 100 * 1024 * 1024
_KEEPALIVE_MS = 600_000
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
"""A service that does not know the model yet is told of it again after this time, then twice as long each time."""


class RenderUds:
    """Has a tokenizer service render and tokenize.

    Args:
        socket: path of the socket.
        model: as the service knows it.
        runtime: background work.
        first_retry_s: seconds after the first failure to announce the model.
        uses_tcp: ``socket`` is a host:port.
    """

    def __init__(
        self,
        socket: str,
        model: str,
        runtime: Runtime | None,
        *,
        first_retry_s: float = FIRST_RETRY_S,
        uses_tcp: bool = False,
    ) -> None:
        self._socket = socket
        self._target = socket if uses_tcp else f"unix:{socket}"
        self._model = model
        self._runtime = runtime
        self._first_retry_s = first_retry_s
        self._channel: Channel | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._is_known = False

    async def start(self) -> None:
        """Connect, and tell the service which model it will be asked about."""
        from grpc.aio import insecure_channel

        options = [
            ("grpc.max_send_message_length", _MOST_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ]
        self._channel = insecure_channel(self._target, options=options)
        self._announce()

    async def stop(self) -> None:
        """Disconnect."""
        if self._announcing is not None:
            self._announcing.cancel()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def tokenize(self, body: ParsedBody) -> TokenizedPrompt | None:
        """What the service makes of the prompt, images included; None if there is none.

        Raises:
            TokenizationError: the service cannot be reached in time, refuses, or answers something else.
        """
        prompt = prompt_of(body)
        if prompt is None:
            return None
        if isinstance(prompt, Chat):
            answer = await self._chat(prompt)
            media = media_features(answer.hashes, answer.ranges)
            return TokenizedPrompt(answer.tokens, is_exact=True, model=self._model, media=media)
        first, *more = [(await self._completion(text)).tokens for text in prompt.prompts]
        return TokenizedPrompt(first, is_exact=True, model=self._model, further=tuple(more))

    def debug_state(self) -> dict[str, object]:
        """Whom it asks, and whether the service knows the model."""
        return {"backEnd": "udsTokenizerConfig", "socketFile": self._socket, "initialized": self._is_known}

    async def _chat(self, chat: Chat) -> Answer:
        timeout_s = MEDIA_TIMEOUT_S if chat.has_media else TIMEOUT_S
        request = messages.render_chat(self._model, chat)
        answer = await self._call("RenderChatCompletion", request, messages.read_chat, timeout_s)
        if answer is not None:
            return answer
        # Services of older releases render to text first.
        template = messages.chat_template(self._model, chat)
        text = _known(await self._call("RenderChatTemplate", template, messages.read_template, timeout_s)).text
        return await self._tokenize(text, special=False)

    async def _completion(self, text: str) -> Answer:
        request = messages.render_completion(self._model, text)
        answer = await self._call("RenderCompletion", request, messages.read_completion, TIMEOUT_S)
        return answer if answer is not None else await self._tokenize(text, special=True)

    async def _tokenize(self, text: str, *, special: bool) -> Answer:
        request = messages.tokenize(self._model, text, special=special)
        return _known(await self._call("Tokenize", request, messages.read_tokenized, TIMEOUT_S))

    async def _call(self, method: str, request: bytes, read: Callable[[bytes], Answer], timeout_s: float) -> Answer | None:
        """The answer of the service; None if it does not know the method.

        Raises:
            TokenizationError: it cannot be reached in time, or refuses.
        """
        from google.protobuf.message import DecodeError
        from grpc import StatusCode
        from grpc.aio import AioRpcError

        if self._channel is None:
            raise TokenizationError("the tokenizer service is not connected")
        try:
            ask: UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(SERVICE + method)
            answer = read(await ask(request, timeout=timeout_s))
        except AioRpcError as error:
            if error.code() is StatusCode.UNIMPLEMENTED:
                return None
            self._announce()
            raise TokenizationError(f"{method} at {self._socket}: {error.code().name}: {error.details()}") from error
        except DecodeError as error:
            raise TokenizationError(f"{method} at {self._socket}: the answer cannot be read: {error}") from error
        if not answer.success:
            raise TokenizationError(f"{method} at {self._socket}: {answer.error or 'refused without a reason'}")
        return answer

    def _announce(self) -> None:
        """Begin to tell the service of the model, unless that is under way; it may be another process than before."""
        if self._runtime is None or (self._announcing is not None and not self._announcing.done()):
            return
        self._is_known = False
        self._announcing = self._runtime.spawn(self._initialize(), f"initializing of tokenizer {self._model}")

    async def _initialize(self) -> None:
        pause_s = self._first_retry_s
        while True:
            try:
                await self._call("InitializeTokenizer", messages.initialize(self._model), messages.read_initialized, TIMEOUT_S)
            except TokenizationError as error:
                details = {"model": self._model, "error": str(error), "retry_s": pause_s}
                _logger.warning("tokenizer service not ready, prompts are not tokenized", details=details)
            else:
                self._is_known = True
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)


def _known(answer: Answer | None) -> Answer:
    if answer is None:
        raise TokenizationError("the tokenizer service knows neither of the methods that would do")
    return answer
