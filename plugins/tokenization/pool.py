"""TokenizerPool: the tokenizers of one base model that a plugin has for itself, on disk, over a socket, or from the hub.

The first that has the model is used: local files, then the service, then the Hugging Face hub.
Source: llm-d-kv-cache v0.5.0: pkg/tokenization/{pool,tokenizer}.go
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from epp.framework import log
from epp.framework.handle import Runtime
from epp.framework.keys import TokenizedPrompt
from epp.framework.types import ParsedBody
from plugins.tokenization.backend import BackEnd, TokenizationError
from plugins.tokenization.chat import Chat, Texts, prompt_of
from plugins.tokenization.discovery import locate
from plugins.tokenization.files import Hub
from plugins.tokenization.in_process import FIRST_RETRY_S, LAST_RETRY_S, Model, refuse_foreign
from plugins.tokenization.segments import SegmentedTokenizer, SegmentStore

_logger = log.get(__name__)

LOCAL, SERVICE, HUB = "local", "uds", "hf"
"""Names of the back ends, as metrics have them."""
QUEUE_FACTOR = 4
"""Prompts that wait or are tokenized, for each worker; more would be late in any case."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Tokenizers on disk."""

    folder: Path
    file_name: str = "tokenizer.json"
    explicit: Mapping[str, str] = field(default_factory=dict)
    """Model name → file or folder."""
    model: str = ""
    """Another name to look for; "" = the base model's."""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Where tokenizers come from, and how much they may do."""

    model: str
    local: LocalFiles
    hub: Hub | None = None
    """None = nothing is downloaded."""
    hub_model: str = ""
    """Another id there; "" = the base model's."""
    workers: int = 5
    store_blocks: int = 500_000
    store_block_bytes: int = 256
    least_known: float = 0.8


class Timing(NamedTuple):
    """What a prompt took in this process."""

    render_s: float | None
    """None = there was no chat."""
    tokenize_s: float


class Watches(Protocol):
    """Who is told of the pool's work, on the event loop."""

    def tokenized(self, back_end: str, tokens: int, timing: Timing) -> None:
        """A prompt became tokens."""
        ...

    def not_tokenized(self, back_end: str) -> None:
        """A prompt did not."""
        ...


class _Loaded:
    """A model in this process, with what is remembered of its tokens."""

    def __init__(self, back_end: str, model: Model, settings: PoolSettings) -> None:
        self.back_end = back_end
        self.store = SegmentStore(settings.store_blocks, settings.store_block_bytes)
        self._model = model
        self._chats = SegmentedTokenizer(model.tokenizer, self.store, settings.least_known)

    def encode(self, prompt: Texts | Chat) -> tuple[list[Sequence[int]], Timing]:
        """The tokens of each prompt.

        Raises:
            TokenizationError: the template refuses the conversation.
        """
        begun = time.perf_counter()
        if not isinstance(prompt, Chat):
            return self._model.encode(prompt), Timing(None, time.perf_counter() - begun)
        text = self._model.render(prompt)
        rendered = time.perf_counter()
        ids = self._chats.encode(text)
        return [ids], Timing(rendered - begun, time.perf_counter() - rendered)


class TokenizerPool:
    """Implements ``BackEnd`` with all of them.

    Args:
        settings: which.
        service: the tokenizer service; None = there is none.
        runtime: background work.
        watches: is told of the work.
        first_retry_s: seconds after the first failure to load.
    """

    def __init__(
        self,
        settings: PoolSettings,
        service: BackEnd | None,
        runtime: Runtime | None,
        watches: Watches,
        *,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self._settings = settings
        self._service = service
        self._runtime = runtime
        self._watches = watches
        self._first_retry_s = first_retry_s
        self._loaded: _Loaded | None = None
        self._problem = "the tokenizer is being loaded"
        self._threads: ThreadPoolExecutor | None = None
        self._pending = 0
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to load; requests are served meanwhile, without tokens."""
        if self._runtime is None:
            return
        self._threads = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="tokenizer")
        if self._service is not None:
            await self._service.start()
        self._loading = self._runtime.spawn(self._load(), f"loading of tokenizer {self._settings.model}")

    async def stop(self) -> None:
        """Give up loading, threads and connections."""
        if self._loading is not None:
            self._loading.cancel()
        if self._service is not None:
            await self._service.stop()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def tokenize(self, body: ParsedBody) -> TokenizedPrompt | None:
        """The tokens of the prompt, by the first back end that can tell them; None if there is no prompt.

        Raises:
            TokenizationError: none can; the text says of each why.
        """
        prompt = prompt_of(body)
        if prompt is None:
            return None
        problems: list[str] = []
        loaded = self._loaded
        if loaded is not None and loaded.back_end == LOCAL:
            return await self._try(LOCAL, self._in_process(loaded, prompt), problems) or self._refuse(problems)
        if self._service is not None:
            found = await self._try(SERVICE, self._by_service(self._service, body), problems)
            if found is not None:
                return found
        if loaded is not None:
            return await self._try(loaded.back_end, self._in_process(loaded, prompt), problems) or self._refuse(problems)
        if self._service is None or self._settings.hub is not None:
            problems.append(self._problem)
            self._watches.not_tokenized(HUB if self._settings.hub is not None else LOCAL)
        return self._refuse(problems)

    def debug_state(self) -> dict[str, object]:
        """What is loaded, and what is remembered."""
        loaded = self._loaded
        state: dict[str, object] = {
            "model": self._settings.model,
            "loaded": loaded.back_end if loaded is not None else None,
            "pending": self._pending,
        }
        if loaded is not None:
            store = loaded.store
            state["segments"] = {"blocks": store.blocks, "hits": store.hits, "misses": store.misses}
        if self._service is not None:
            state["service"] = self._service.debug_state()
        return state

    def _refuse(self, problems: Sequence[str]) -> TokenizedPrompt:
        raise TokenizationError("; ".join(problems))

    async def _try(
        self, back_end: str, work: Coroutine[object, object, TokenizedPrompt | None], problems: list[str]
    ) -> TokenizedPrompt | None:
        try:
            return await work
        except TokenizationError as error:
            problems.append(f"{back_end}: {error}")
            self._watches.not_tokenized(back_end)
            return None

    async def _by_service(self, service: BackEnd, body: ParsedBody) -> TokenizedPrompt | None:
        begun = time.perf_counter()
        prompt = await service.tokenize(body)
        if prompt is not None:
            self._watches.tokenized(SERVICE, prompt.count, Timing(None, time.perf_counter() - begun))
        return prompt

    async def _in_process(self, loaded: _Loaded, prompt: Texts | Chat) -> TokenizedPrompt:
        refuse_foreign(prompt)
        most = QUEUE_FACTOR * self._settings.workers
        if self._pending >= most:
            raise TokenizationError(f"{most} prompts are waiting")
        self._pending += 1
        work = asyncio.get_running_loop().run_in_executor(self._threads, loaded.encode, prompt)
        work.add_done_callback(self._ended)
        # Who gives up waiting leaves the work to the store of segments.
        (first, *more), timing = await asyncio.shield(work)
        made = TokenizedPrompt(first, is_exact=True, model=self._settings.model, further=tuple(more))
        self._watches.tokenized(loaded.back_end, made.count, timing)
        return made

    def _ended(self, work: asyncio.Future[tuple[list[Sequence[int]], Timing]]) -> None:
        self._pending -= 1
        if not work.cancelled():
            work.exception()  # retrieved, as nobody may be waiting any longer

    async def _load(self) -> None:
        pause_s = self._first_retry_s
        while True:
            try:
                self._loaded = await asyncio.get_running_loop().run_in_executor(self._threads, self._find)
            except Exception as error:  # noqa: BLE001 — files, the hub's client and the tokenizer fail in many ways
                self._problem = f"the tokenizer cannot be loaded: {type(error).__name__}: {error}"
                details = {"model": self._settings.model, "error": self._problem, "retry_s": pause_s}
                _logger.warning("tokenizer not loaded, prompts are not tokenized", details=details)
            if self._loaded is not None:
                _logger.info("tokenizer loaded", model=self._settings.model, source=self._loaded.back_end)
                return
            if self._service is not None and self._settings.hub is None:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)

    def _find(self) -> _Loaded | None:
        """In a thread: load from disk, else from the hub; None if only the service may know the model."""
        settings, local = self._settings, self._settings.local
        path = locate(local.model or settings.model, local.folder, local.file_name, local.revision, local.explicit)
        if path is not None:
            return _Loaded(LOCAL, Model(str(path)), settings)
        if settings.hub is not None:
            hub = Hub(_writable(settings.hub.cache_dir), settings.hub.token, settings.hub.revision)
            return _Loaded(HUB, Model(settings.hub_model or settings.model, hub), settings)
        if self._service is not None:
            return None
        raise FileNotFoundError(f"no {local.file_name} of {local.model or settings.model} in {local.folder}")


def _writable(folder: str) -> str:
    """The folder, made if it does not exist; a temporary one where it cannot be written to."""
    if not folder:
        return folder
    try:
        os.makedirs(folder, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        problem = "not writable"
    except OSError as error:
        problem = str(error)
    instead = tempfile.mkdtemp(prefix="tokenizers-")
    _logger.warning("cache of tokenizers is elsewhere", folder=folder, problem=problem, instead=instead)
    return instead
