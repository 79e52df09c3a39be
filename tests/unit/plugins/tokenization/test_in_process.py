"""The tokenizer in this process: files, tokens, and what happens where a model is not there."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from epp.framework import log
from epp.framework.types import Api, ParsedBody
from epp.process.runtime import TaskRuntime
from plugins.tokenization import in_process
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.files import find
from plugins.tokenization.in_process import MAX_PENDING, InProcess, Model
from tests.unit.plugins.tokenization.bodies import anthropic, chat, completion, image, responses
from tests.unit.plugins.tokenization.models import TEMPLATE, words, write_model


@asynccontextmanager
async def loaded(name: Path | str) -> AsyncIterator[InProcess]:
    """A tokenizer that has loaded its model."""
    runtime = TaskRuntime()
    back_end = InProcess(str(name), runtime)
    await back_end.start()
    try:
        async with asyncio.timeout(10):
            await asyncio.gather(*runtime._tasks)
        yield back_end
    finally:
        await back_end.stop()
        await runtime.stop()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(completion("hello world"), ["<s> hello world"], id="completion: special tokens are added"),
        pytest.param(completion(["hello", "world"]), ["<s> hello", "<s> world"], id="each prompt of a list by itself"),
        pytest.param(completion("hello " * 10), ["<s>" + " hello" * 10], id="not cut, though the model's file says so"),
        pytest.param(completion("hello"), ["<s> hello"], id="not filled up either"),
        pytest.param(
            chat("hello", {"role": "assistant", "content": "world"}, "again"),
            ["<s> <|user|> hello </s> <|assistant|> world </s> <|user|> again </s> <|assistant|>"],
            id="chat: only those of the template",
        ),
        pytest.param(chat("hello", add_generation_prompt=False), ["<s> <|user|> hello </s>"], id="no generation prompt"),
        pytest.param(
            responses("hello", instructions="again"), ["<s> <|system|> again </s> <|user|> hello </s> <|assistant|>"],
            id="responses",
        ),
        pytest.param(
            anthropic({"role": "user", "content": "hello"}, system="again"),
            ["<s> <|system|> again </s> <|user|> hello </s> <|assistant|>"], id="anthropic",
        ),
        pytest.param(ParsedBody(Api.EMBEDDINGS, {"input": "hello"}), ["<s> hello"], id="embeddings"),
    ],
)  # fmt: skip
async def test_tokens(body: ParsedBody, expected: list[str], tmp_path: Path) -> None:
    async with loaded(write_model(tmp_path)) as back_end:
        prompt = await back_end.tokenize(body)
    assert prompt is not None
    assert [words(tokens) for tokens in (prompt.token_ids, *prompt.further)] == expected
    assert (prompt.is_exact, prompt.model, prompt.media) == (True, str(tmp_path), ())


async def test_bodies_without_text_have_no_tokens(tmp_path: Path) -> None:
    async with loaded(write_model(tmp_path)) as back_end:
        assert await back_end.tokenize(ParsedBody(Api.RAW)) is None
        assert await back_end.tokenize(completion(7)) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(chat(["hello", image()]), "only the engine", id="media"),
        pytest.param(chat("hello", chat_template="{% for x in y %}{% endfor %}"), "template of its own", id="template"),
        pytest.param(
            chat("hello", {"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}), "JSON", id="arguments"
        ),
    ],
)
async def test_prompts_that_are_left_to_others(body: ParsedBody, message: str, tmp_path: Path) -> None:
    async with loaded(write_model(tmp_path)) as back_end:
        with pytest.raises(TokenizationError, match=message):
            await back_end.tokenize(body)


# ── files ──


@pytest.mark.parametrize(
    ("template", "files", "expected"),
    [
        pytest.param("c", {}, {"default": "c"}, id="of the configuration"),
        pytest.param([{"name": "default", "template": "c"}, {"name": "tool_use", "template": "t"}], {},
                     {"default": "c", "tool_use": "t"}, id="several"),
        pytest.param("c", {"chat_template.jinja": "j"}, {"default": "j"}, id="a file of its own wins"),
        pytest.param(None, {"chat_template.json": '{"chat_template": "p"}'}, {"default": "p"}, id="of the processor"),
        pytest.param(None, {}, {}, id="none"),
    ],
)  # fmt: skip
def test_templates(template: Any, files: dict[str, str], expected: dict[str, str], tmp_path: Path) -> None:
    assert find(str(write_model(tmp_path, template, files=files))).templates == expected


@pytest.mark.parametrize("folder", ["additional_chat_templates", "chat_templates"])
def test_templates_in_a_folder(folder: str, tmp_path: Path) -> None:
    write_model(tmp_path / "m", "c")
    (tmp_path / "m" / folder).mkdir()
    (tmp_path / "m" / folder / "tool_use.jinja").write_text("t")
    assert find(str(tmp_path / "m")).templates == {"default": "c", "tool_use": "t"}


def test_special_tokens(tmp_path: Path) -> None:
    more = json.dumps({"pad_token": {"content": "<pad>"}, "bos_token": "old"})
    write_model(tmp_path, config={"unk_token": None, "add_bos_token": True}, files={"special_tokens_map.json": more})
    assert find(str(tmp_path)).special_tokens == {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def hub_cache(root: Path) -> Path:
    """A model's folder as the hub's client has it, with two revisions."""
    folder = root / "models--acme--tiny"
    write_model(folder / "snapshots" / "abc", "old")
    write_model(folder / "snapshots" / "def", TEMPLATE)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("def")
    return folder


def test_a_model_is_a_file_a_folder_or_a_folder_of_the_cache(tmp_path: Path) -> None:
    folder = hub_cache(tmp_path)
    newest = folder / "snapshots" / "def"
    for name in (folder, newest, newest / "tokenizer.json"):
        assert find(str(name)).tokenizer == newest / "tokenizer.json"


async def test_a_model_in_the_hubs_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = hub_cache(tmp_path) / "snapshots" / "def"
    asked = []

    def download(model: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append((model, local_files_only))
        return str(newest)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    async with loaded("acme/tiny") as back_end:
        prompt = await back_end.tokenize(completion("hello"))
    assert prompt is not None
    assert words(prompt.token_ids) == "<s> hello"
    assert asked == [("acme/tiny", True)]


@pytest.mark.parametrize("cached", [False, True], ids=["not cached", "cached without a tokenizer"])
def test_a_model_that_is_not_in_the_cache_is_fetched(cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = write_model(tmp_path / "fetched")

    def download(model: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert "tokenizer.json" in allow_patterns
        assert not any(pattern.endswith((".safetensors", "*")) for pattern in allow_patterns if pattern != "chat_template.*")
        if local_files_only and not cached:
            raise FileNotFoundError("not cached")
        return str(tmp_path if local_files_only else fetched)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find("acme/tiny").tokenizer == fetched / "tokenizer.json"


def test_the_hubs_client_finds_its_cache(tmp_path: Path) -> None:
    """The call that is made really is one of the client's."""
    hub_cache(tmp_path)
    found = huggingface_hub.snapshot_download(
        "acme/tiny", allow_patterns=["tokenizer.json"], local_files_only=True, cache_dir=tmp_path
    )
    assert Path(found) == tmp_path / "models--acme--tiny" / "snapshots" / "def"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("/none/model", "there is no file or folder"),
        ("{}/empty", "models without a fast tokenizer"),
        ("{}/list", "not a JSON object"),
    ],
)
def test_models_that_cannot_be_read(name: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_model(tmp_path / "list", files={"tokenizer_config.json": "[]"})
    with pytest.raises((OSError, ValueError), match=error):
        Model(name.format(tmp_path))


# ── life ──


async def test_a_model_that_comes_later_is_loaded_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, failure = TaskRuntime(), asyncio.Event()

    class Telling:
        """A log that tells when it warns."""

        info = in_process._logger.info

        def warning(self, message: str, **more: Any) -> None:
            log.get(in_process.__name__).warning(message, **more)
            failure.set()

    monkeypatch.setattr(in_process, "_logger", Telling())
    back_end = InProcess(str(tmp_path / "m"), runtime, first_retry_s=0.005)
    with pytest.raises(TokenizationError, match="is being loaded"):
        await back_end.tokenize(completion("hello"))
    await back_end.start()
    await failure.wait()
    with pytest.raises(TokenizationError, match="cannot be loaded: FileNotFoundError: there is no file or folder"):
        await back_end.tokenize(completion("hello"))
    assert back_end.debug_state() == {"backEnd": "in-process", "loaded": False, "pending": 0}
    write_model(tmp_path / "m")
    async with asyncio.timeout(10):
        await asyncio.gather(*runtime._tasks)
    assert await back_end.tokenize(completion("hello")) is not None
    told = {record.getMessage() for record in caplog.records}
    assert told == {"tokenizer not loaded, prompts are not tokenized", "tokenizer loaded"}
    await runtime.stop()


async def test_loading_ends_with_the_plugin(tmp_path: Path) -> None:
    runtime = TaskRuntime()
    back_end = InProcess(str(tmp_path / "m"), runtime)
    await back_end.start()
    await back_end.stop()
    async with asyncio.timeout(5):
        await asyncio.gather(*runtime._tasks, return_exceptions=True)
    await runtime.stop()


async def test_work_is_off_the_event_loop_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, threads = threading.Event(), set()

    def encode(self: Model, prompt: object) -> list[list[int]]:
        threads.add(threading.current_thread().name)
        assert released.wait(10)
        return [[1]]

    monkeypatch.setattr(in_process.Model, "encode", encode)
    async with loaded(write_model(tmp_path)) as back_end:
        waiting = [asyncio.create_task(back_end.tokenize(completion("hello"))) for _ in range(MAX_PENDING)]
        await asyncio.sleep(0)
        with pytest.raises(TokenizationError, match="16 prompts are waiting"):
            await back_end.tokenize(completion("hello"))
        waiting[0].cancel()
        released.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(not isinstance(result, BaseException) for result in found) == MAX_PENDING - 1
        assert await back_end.tokenize(completion("hello")) is not None
    assert all(name.startswith("offload") for name in threads)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs tokenizers and jinja2.*pip install 'endpoint-picker\[tokenizer\]'"):
        in_process.require_libraries()
