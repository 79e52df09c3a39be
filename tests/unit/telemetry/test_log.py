"""The logger: what is written when, with which request id; and the queue to stderr."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import orjson
import pytest

from epp.framework import log
from epp.framework.log import Logger
from epp.telemetry.log import LogOptions, redacted, setup
from epp.telemetry.log_queue import QueuedHandler

logger = log.get("epp.test")


class Capture:
    """What a sink wrote."""

    def __init__(self, options: LogOptions) -> None:
        self.stream = io.BytesIO()
        self.sink = setup(options, self.stream)

    def lines(self) -> list[dict[str, object]]:
        self.sink.flush()
        return [orjson.loads(line) for line in self.stream.getvalue().splitlines()]

    def messages(self) -> list[object]:
        return [line["msg"] for line in self.lines()]


@pytest.fixture
def capture() -> Iterator[Callable[..., Capture]]:
    """Starts the log with options, and restores everything afterwards."""
    verbosity, made = log.verbosity(), list[Capture]()

    def begin(**options: object) -> Capture:
        made.append(Capture(LogOptions(**options)))  # type: ignore[arg-type]
        return made[-1]

    yield begin
    for one in made:
        one.sink.close()
    log.set_verbosity(verbosity)


def log_all(target: Logger) -> None:
    target.error("error")
    target.warning("warning")
    target.info("info")
    target.log(log.DEFAULT, "default")
    target.verbose("verbose")
    target.debug("debug")
    target.trace("trace")
    target.log(7, "seven")


@pytest.mark.parametrize(
    ("verbosity", "count"), [(-2, 0), (-1, 1), (0, 3), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 7), (7, 8)]
)
def test_each_level_of_verbosity_adds_records(capture: Callable[..., Capture], verbosity: int, count: int) -> None:
    everything = ["error", "warning", "info", "default", "verbose", "debug", "trace", "seven"]
    seen = capture(verbosity=verbosity)
    log_all(logger)
    assert seen.messages() == everything[:count]


def test_level_words_follow_verbosity(capture: Callable[..., Capture]) -> None:
    seen = capture(verbosity=7)
    log_all(logger)
    assert [line["level"] for line in seen.lines()] == ["error", "warning", "info", "info", "info", "debug", "trace", "trace"]


@pytest.mark.parametrize("level", range(-1, 9))
def test_the_guard_tells_what_is_written(level: int, capture: Callable[..., Capture]) -> None:
    capture(verbosity=4)
    assert logger.v(level) is log.enabled(level) is (level <= 4)


def test_verbosity_changes_at_run_time_within_limits(capture: Callable[..., Capture]) -> None:
    seen = capture(verbosity=2)
    logger.debug("hidden")
    assert [log.raise_verbosity(), log.raise_verbosity()] == [3, 4]
    logger.debug("shown")
    assert log.lower_verbosity() == 3
    logger.debug("hidden again")
    assert seen.messages() == ["shown"]
    assert log.set_verbosity(99) == log.raise_verbosity() == 10
    assert log.set_verbosity(-99) == log.lower_verbosity() == -2


def test_a_record_names_its_logger_and_caller(capture: Callable[..., Capture]) -> None:
    seen = capture()
    logger.info("here")
    (line,) = seen.lines()
    assert line["logger"] == "epp.test"
    assert str(line["caller"]).startswith("telemetry/test_log.py:")


async def test_the_request_id_is_on_every_record_of_its_task_only(capture: Callable[..., Capture]) -> None:
    seen = capture()

    async def request(request_id: str) -> None:
        token = log.bind_request_id(request_id)
        logger.info("begin")
        await asyncio.sleep(0)
        logger.info("end")
        log.unbind_request_id(token)
        logger.info("outside")

    await asyncio.gather(request("a"), request("b"))
    logger.info("explicit", request_id="c")
    by_message = sorted((str(line["msg"]), line.get("x-request-id")) for line in seen.lines() if line["msg"] != "outside")
    assert by_message == [("begin", "a"), ("begin", "b"), ("end", "a"), ("end", "b"), ("explicit", "c")]
    assert [line.get("x-request-id") for line in seen.lines() if line["msg"] == "outside"] == [None, None]


def fail() -> None:
    raise OSError("disk full")


def test_an_exception_is_written_with_its_traceback(capture: Callable[..., Capture]) -> None:
    seen = capture()
    try:
        fail()
    except OSError as error:
        logger.error("write failed", exc=error)
    (line,) = seen.lines()
    assert line["error"] == "OSError: disk full"
    assert "in fail" in str(line["stacktrace"])


@pytest.mark.parametrize(
    ("level", "expected"),
    [("info", {"error", "warning", "info"}), ("error", {"error"}), ("panic", set())],
)
def test_the_stack_level_decides_who_carries_a_stack(capture: Callable[..., Capture], level: str, expected: set[str]) -> None:
    seen = capture(stacktrace_level=level, verbosity=4)
    logger.error("error")
    logger.warning("warning")
    logger.info("info")
    logger.debug("debug")
    lines = seen.lines()
    assert {str(line["msg"]) for line in lines if "stacktrace" in line} == expected
    for line in lines:
        if "stacktrace" in line:
            assert str(line["stacktrace"]).startswith("test_the_stack_level_decides")


def test_records_of_other_libraries_take_the_same_way_from_warning_up(capture: Callable[..., Capture]) -> None:
    seen = capture(verbosity=5)
    other = logging.getLogger("somebody.elses")
    other.info("chatter %d", 1)
    other.warning("trouble %d", 2)
    (line,) = seen.lines()
    assert (line["level"], line["logger"], line["msg"]) == ("warning", "somebody.elses", "trouble 2")


def test_python_warnings_become_records(capture: Callable[..., Capture]) -> None:
    seen = capture()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings put its own printer in place; the sink's is what would run outside a test.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = seen.lines()
    assert "old thing" in str(line["msg"])


def test_closing_leaves_the_standard_library_as_it_was() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    setup(LogOptions(), io.BytesIO()).close()
    assert (root.level, list(root.handlers)) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "yaml"}, "unknown log encoder 'yaml'; there are json, console"),
        ({"stacktrace_level": "warn"}, "unknown stack trace level 'warn'; there are info, error, panic"),
        ({"time_encoding": "unix"}, "unknown time encoding 'unix'"),
    ],
    ids=["encoder", "stack level", "time"],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, str], message: str) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    with pytest.raises(ValueError, match=message):
        setup(LogOptions(**options), io.BytesIO())  # type: ignore[arg-type]
    assert root.handlers == before


def test_the_console_encoder_is_not_coloured_away_from_a_terminal() -> None:
    stream = io.BytesIO()
    sink = setup(LogOptions(encoder="console"), stream)
    logger.info("hello", n=1)
    sink.close()
    assert b"\tINFO\tepp.test\t" in stream.getvalue()
    assert b"\x1b" not in stream.getvalue()


def test_headers_are_logged_without_credentials() -> None:
    headers = [
        ("Authorization", "Bearer s3cret"),
        ("cookie", "a"),
        ("cookie", "b"),
        ("X-Api-Key", "k"),
        ("accept", "x"),
        ("accept", "y"),
        ("long", "z" * 1000),
    ]
    assert redacted(headers) == {
        "authorization": "[redacted]",
        "cookie": "[redacted], [redacted]",
        "x-api-key": "[redacted]",
        "accept": "x, y",
        "long": "z" * 256,
    }


class Gate(io.BytesIO):
    """A stream whose reader does not read until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.opened = threading.Event()

    def write(self, data: object) -> int:
        self.entered.set()
        assert self.opened.wait(10)
        return super().write(data)  # type: ignore[arg-type]


def encode(record: logging.LogRecord) -> bytes:
    return f"{record.getMessage()} {getattr(record, 'fields', '')}\n".encode()


def plain_record(message: str) -> logging.LogRecord:
    return logging.LogRecord("epp.test", logging.INFO, "x.py", 1, message, None, None)


def test_records_beyond_the_queue_are_dropped_counted_and_told() -> None:
    stream = Gate()
    handler = QueuedHandler(encode, stream, limit=2)
    handler.emit(plain_record("first"))
    assert stream.entered.wait(10)
    for number in range(5):
        handler.emit(plain_record(str(number)))
    assert handler.dropped == 3
    stream.opened.set()
    handler.close()
    lines = [line.strip() for line in stream.getvalue().decode().splitlines()]
    assert lines == ["first", "0", "1", "log records dropped {'total': 3}"]


def test_a_stream_that_is_gone_drops_records_without_raising() -> None:
    stream = io.BytesIO()
    stream.close()
    handler = QueuedHandler(encode, stream, limit=10)
    handler.emit(plain_record("lost"))
    handler.flush()
    handler.close()
    handler.emit(plain_record("after the end"))
    handler.flush()
    assert handler.dropped == 2


def test_a_value_that_cannot_be_written_does_not_stop_the_log(
    capture: Callable[..., Capture], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("broken")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    seen = capture()
    logger.info("broken", value=Broken())
    logger.info("next")
    assert seen.messages()[-1] == "next"


def test_an_exit_writes_what_is_queued() -> None:
    code = "from epp.framework import log\nfrom epp.telemetry.log import *\n"
    code += "setup(LogOptions())\nfor n in range(500): log.get('epp').info('line', n=n)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert [orjson.loads(line)["n"] for line in done.stderr.splitlines()] == list(range(500))


async def test_records_name_the_pool_that_is_bound_also_in_tasks(capture: Callable[..., Capture]) -> None:
    shown = capture()
    logger.info("none")
    token = log.bind_pool("chat")

    async def later() -> None:
        logger.info("task", pool="own field")

    task = asyncio.create_task(later())
    logger.info("bound")
    log.unbind_pool(token)
    logger.info("none again")
    await task
    assert [line.get("pool") for line in shown.lines()] == [None, "chat", None, "own field"]
