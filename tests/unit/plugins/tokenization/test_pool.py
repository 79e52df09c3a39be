"""The pool of a plugin's own tokenizers: who has the model, what is remembered, what fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from epp.framework.keys import TokenizedPrompt
from epp.process.runtime import TaskRuntime
from plugins.tokenization import pool as pool_module
from plugins.tokenization.backend import BackEnd, TokenizationError
from plugins.tokenization.discovery import discover, locate
from plugins.tokenization.files import Hub
from plugins.tokenization.pool import LocalFiles, PoolSettings, Timing, TokenizerPool
from plugins.tokenization.segments import SegmentedTokenizer, SegmentStore, cut_marks
from plugins.tokenization.unmapped import Unmapped
from tests.unit.plugins.tokenization.bodies import chat, completion, image
from tests.unit.plugins.tokenization.models import words, write_model

# ── files on disk ──


def cached(root: Path, name: str, *revisions: str, main: str = "") -> Path:
    """A model as the hub's cache has it: links to blobs."""
    folder = root / name
    blob = folder / "blobs" / "0123"
    blob.parent.mkdir(parents=True)
    blob.write_text("{}")
    for revision in revisions:
        snapshot = folder / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "tokenizer.json").symlink_to(blob)
    if main:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main + "\n")
    return folder


def test_prefix_99_names_of_models(tmp_path: Path) -> None:
    cached(tmp_path, "models--acme--chat-7b", "abc")
    cached(tmp_path, "models--gpt2", "abc")
    cached(tmp_path, "models--a--b--c", "abc")
    (tmp_path / "local" / "x").mkdir(parents=True)
    (tmp_path / "local" / "x" / "tokenizer.json").write_text("{}")
    (tmp_path / "local" / "y.json").write_text("{}")
    assert sorted(discover(tmp_path, "tokenizer.json")) == ["a/b--c", "acme/chat-7b", "gpt2", "local/x"]
    assert discover(tmp_path / "missing", "tokenizer.json") == {}


@pytest.mark.parametrize(
    ("revision", "main", "expected"),
    [("", "", "aaa"), ("", "bbb", "bbb"), ("ccc", "bbb", "ccc"), ("main", "bbb", "bbb"), ("zzz", "bbb", "bbb")],
)
def test_of_several_snapshots_one_is_chosen(tmp_path: Path, revision: str, main: str, expected: str) -> None:
    cached(tmp_path, "models--m", "ccc", "aaa", "bbb", main=main)
    assert discover(tmp_path, "tokenizer.json", revision)["m"].parent.name == expected


def test_prefix_100_an_explicit_path_wins(tmp_path: Path) -> None:
    cached(tmp_path, "models--m", "abc")
    assert locate("m", tmp_path, "tokenizer.json", explicit={"m": "/elsewhere"}) == Path("/elsewhere")
    found = locate("m", tmp_path, "tokenizer.json", explicit={"n": "/elsewhere"})
    assert found is not None
    assert found.parent.name == "abc"


def test_a_single_tokenizer_in_the_folder_is_the_models(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert discover(tmp_path, "tokenizer.json") == {tmp_path.name: tmp_path / "tokenizer.json"}
    assert locate("any/model", tmp_path, "tokenizer.json") == tmp_path / "tokenizer.json"
    cached(tmp_path, "models--m", "abc")
    assert locate("any/model", tmp_path, "tokenizer.json") is None


def test_folders_that_cannot_be_read_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(tmp_path, "models--m", "abc")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("blobs"):
            raise PermissionError(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert sorted(discover(tmp_path, "tokenizer.json")) == ["m"]


# ── segments ──

MARKS = ("<|user|>", "<|end|>", "<s>")


def byte_level() -> Tokenizer:
    """As GPT-2 and its descendants: any bytes, merged."""
    vocabulary = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("a", "b"), ("Ġ", "a"), ("b", "b"), ("ab", "b"), ("Ġ", "Ġ"), ("Ã", "©")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def first_prepended() -> Tokenizer:
    """As newer ones of the Llama 2 kind: only the beginning of a text gets a mark of its own."""
    letters = "▁ab bé😀<|>user end"
    vocabulary = {letter: place for place, letter in enumerate(dict.fromkeys(letters))}
    vocabulary |= {"▁a": len(vocabulary), "<unk>": len(vocabulary) + 1}
    made = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return made


def always_prepended() -> Tokenizer:
    """As Llama 2 itself: a normalizer puts a mark in front of every piece."""
    made = first_prepended()
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


def with_marks(made: Tokenizer) -> Tokenizer:
    made.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    made.add_special_tokens([AddedToken("<|image|>", special=True, normalized=False, lstrip=True, rstrip=True)])
    made.add_tokens([AddedToken(" a", lstrip=True), AddedToken("<|", normalized=True)])
    return made


def with_overlap(made: Tokenizer) -> Tokenizer:
    made.add_tokens([AddedToken("ab<", normalized=False)])
    return made


KINDS = {"byte level": byte_level, "first": first_prepended, "always": always_prepended}
TOKENIZERS = {name: with_marks(make()) for name, make in KINDS.items()} | {"overlap": with_overlap(with_marks(byte_level()))}
texts = st.lists(
    st.one_of(
        st.sampled_from([*MARKS, "<|image|>", "ab<", " a", " ", "a", "b", "é", "😀", "<|", "|>", "\n"]), st.text(max_size=4)
    ),
    max_size=30,
).map("".join)


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
@given(turns=st.lists(texts, min_size=1, max_size=4), least_known=st.sampled_from([0.1, 0.8, 1.0]))
def test_prefix_102_turn_by_turn_the_tokens_are_those_of_the_whole(kind: str, turns: list[str], least_known: float) -> None:
    whole = TOKENIZERS[kind]
    segmented = SegmentedTokenizer(whole, SegmentStore(200, 8), least_known)
    text = ""
    for turn in turns:
        text += turn
        for _ in range(2):
            assert list(segmented.encode(text)) == whole.encode(text, add_special_tokens=False).ids


def test_the_tokenizers_here_are_cut_unless_something_overlaps() -> None:
    marks = {kind: cut_marks(list(made.get_added_tokens_decoder().values())) for kind, made in TOKENIZERS.items()}
    assert marks == {"byte level": list(MARKS), "first": list(MARKS), "always": list(MARKS), "overlap": []}


def test_a_text_is_cut_only_where_nothing_overlaps() -> None:
    def token(content: str, **more: bool) -> AddedToken:
        return AddedToken(content, **{"special": True, "normalized": False, **more})

    assert cut_marks([token("<s>"), token("</s>")]) == ["<s>", "</s>"]
    assert cut_marks([token("<s>"), token("<s>x")]) == ["<s>x"], "the longer one begins like it"
    assert cut_marks([token("<s>"), token("-<")]) == ["-<"], "the other one ends like it begins"
    assert cut_marks([token("s>")]) == [], "a letter may belong to the word in front"
    for more in ({"special": False}, {"normalized": True}, {"lstrip": True}, {"single_word": True}):
        assert cut_marks([token("<s>", **more)]) == []


def test_a_new_turn_costs_its_own_tokenization() -> None:
    class Counting:
        def __init__(self, tokenizer: Tokenizer) -> None:
            self.tokenizer = tokenizer
            self.pieces: list[str] = []

        def encode_batch(self, texts: Sequence[str], **options: Any) -> Any:
            self.pieces += texts
            return self.tokenizer.encode_batch(list(texts), **options)

        def get_added_tokens_decoder(self) -> Any:
            return self.tokenizer.get_added_tokens_decoder()

    counting = Counting(TOKENIZERS["byte level"])
    segmented = SegmentedTokenizer(counting, SegmentStore(1_000, 8), 0.5)  # type: ignore[arg-type]
    segmented.encode("<|user|>" + "ab" * 50 + "<|end|>")
    counting.pieces.clear()
    segmented.encode("<|user|>" + "ab" * 50 + "<|end|>" + "<|user|>b<|end|>")
    assert counting.pieces == ["<|user|>b"]
    counting.pieces.clear()
    segmented.encode("<s>" + "ab" * 50 + "<|end|>")
    assert counting.pieces == ["<s>" + "ab" * 50, "<|end|>"], "too little is known for the store to be asked"


def test_what_is_remembered_is_bounded() -> None:
    store = SegmentStore(10, 8)
    segmented = SegmentedTokenizer(TOKENIZERS["byte level"], store, 0.5)
    for number in range(100):
        segmented.encode("".join(f"<|user|>{number}" for _ in range(3)) + "x" * 200)
        assert store.blocks <= 10


# ── the pool ──


class Told:
    """Remembers what the pool says."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, bool]] = []
        self.failed: list[str] = []

    def tokenized(self, back_end: str, tokens: int, timing: Timing) -> None:
        assert timing.tokenize_s >= 0
        self.made.append((back_end, tokens, timing.render_s is not None))

    def not_tokenized(self, back_end: str) -> None:
        self.failed.append(back_end)


class Service:
    """A tokenizer service that knows a word, or none."""

    def __init__(self, answer: TokenizedPrompt | None) -> None:
        self.answer = answer

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def debug_state(self) -> dict[str, object]:
        return {"is": "a service"}

    async def tokenize(self, body: object) -> TokenizedPrompt | None:
        if self.answer is None:
            raise TokenizationError("the service knows no such model")
        return self.answer


SERVED = TokenizedPrompt([9, 9], is_exact=True, model="m")


@asynccontextmanager
async def pool(
    folder: Path,
    service: BackEnd | None = None,
    *,
    hub: Hub | None = None,
    told: Told | None = None,
    loads: bool = True,
    **more: Any,
) -> AsyncIterator[TokenizerPool]:
    """A pool that has loaded what it can."""
    runtime = TaskRuntime()
    settings = PoolSettings("m", LocalFiles(folder, **more), hub, workers=1)
    made = TokenizerPool(settings, service, runtime, told or Told(), first_retry_s=0.01)
    await made.start()
    try:
        if loads:
            async with asyncio.timeout(20):
                await asyncio.gather(*runtime._tasks)
        yield made
    finally:
        await made.stop()
        await runtime.stop()


async def tokens(made: TokenizerPool, body: Any) -> str:
    prompt = await made.tokenize(body)
    assert prompt is not None
    assert (prompt.is_exact, prompt.model) == (True, "m")
    return " | ".join(map(words, (prompt.token_ids, *prompt.further)))


async def test_a_model_on_disk_comes_first(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    told = Told()
    async with pool(tmp_path, Service(SERVED), told=told) as made:
        assert await tokens(made, chat("hello")) == "<s> <|user|> hello </s> <|assistant|>"
        assert await tokens(made, completion(["hello", "world"])) == "<s> hello | <s> world"
        assert told.made == [("local", 5, True), ("local", 4, False)]
        assert made.debug_state()["loaded"] == "local"
        with pytest.raises(TokenizationError, match="local: how many tokens media take"):
            await made.tokenize(chat([image()]))
        assert told.failed == ["local"]


async def test_then_the_service(tmp_path: Path) -> None:
    told = Told()
    async with pool(tmp_path, Service(SERVED), told=told) as made:
        assert await made.tokenize(completion("hello")) == SERVED
        assert told.made == [("uds", 2, False)]


async def test_then_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = write_model(tmp_path / "hub" / "m")
    asked: list[Hub] = []

    def find(name: str, hub: Hub) -> Any:
        asked.append(hub)
        return real(str(there) if name == "m" else name, hub)

    from plugins.tokenization import files

    real = files.find
    monkeypatch.setattr(files, "find", find)
    told = Told()
    hub = Hub(cache_dir=str(tmp_path / "cache"), token="t", revision="r")
    async with pool(tmp_path / "nothing", Service(None), hub=hub, told=told) as made:
        assert await tokens(made, completion("hello")) == "<s> hello"
        assert (told.made, told.failed) == ([("hf", 2, False)], ["uds"])
    assert asked == [hub]


async def test_what_all_say_is_one_message(tmp_path: Path) -> None:
    told = Told()
    async with pool(tmp_path, Service(None), told=told) as made:
        with pytest.raises(TokenizationError, match=r"^uds: the service knows no such model$"):
            await made.tokenize(completion("hello"))
    async with pool(tmp_path, told=told, loads=False) as made:
        with pytest.raises(TokenizationError, match=r"^the tokenizer (is being loaded|cannot be loaded)"):
            await made.tokenize(completion("hello"))
    assert told.failed == ["uds", "local"]


async def test_prefix_101_a_service_that_was_not_told_of_the_model(tmp_path: Path) -> None:
    async with pool(tmp_path, Unmapped("m", "uds.modelTokenizerMap")) as made:
        with pytest.raises(TokenizationError, match=r"uds: uds.modelTokenizerMap has no entry for m"):
            await made.tokenize(completion("hello"))


async def test_a_model_that_comes_later_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pool(tmp_path, loads=False) as made:
        with pytest.raises(TokenizationError):
            await made.tokenize(completion("hello"))
        write_model(tmp_path / "m")
        assert made._loading is not None
        async with asyncio.timeout(20):
            await made._loading
        assert await tokens(made, completion("hello")) == "<s> hello"


async def test_waiting_prompts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    write_model(tmp_path / "m")
    monkeypatch.setattr(pool_module, "QUEUE_FACTOR", 2)
    go = threading.Event()
    async with pool(tmp_path) as made:
        assert made._loaded is not None
        encode = made._loaded.encode
        monkeypatch.setattr(made._loaded, "encode", lambda prompt: go.wait(20) and encode(prompt))
        waiting = [asyncio.create_task(made.tokenize(completion("hello"))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TokenizationError, match="2 prompts are waiting"):
            await made.tokenize(completion("hello"))
        go.set()
        assert [await task for task in waiting] != []
        assert await tokens(made, completion("hello")) == "<s> hello"


def test_a_cache_that_cannot_be_written_is_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    found = pool_module._writable(str(tmp_path / "file" / "bin"))
    assert Path(found).is_dir()
    assert "cache of tokenizers is elsewhere" in caplog.text
    assert pool_module._writable(str(tmp_path / "bin")) == str(tmp_path / "bin")
    assert pool_module._writable("") == ""
