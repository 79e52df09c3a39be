"""How records look."""

from __future__ import annotations

import logging
from typing import get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.telemetry.log_format import ConsoleEncoder, JsonEncoder, TimeEncoding, level_name, time_encoder, to_json

AT = 1_700_000_000.25


def record(
    level: int = logging.INFO, error: BaseException | None = None, /, *, stack: str = "", request_id: str = "", **fields: object
) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("epp.director", level, "/x/epp/director.py", 42, "endpoint picked", None, exc_info, sinfo=stack)
    made.created = AT
    made.fields = fields
    made.request_id = request_id
    return made


def line(made: logging.LogRecord, time_encoding: TimeEncoding = "rfc3339nano") -> dict[str, object]:
    text = JsonEncoder(time_encoding, logging.ERROR)(made)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    parsed: dict[str, object] = orjson.loads(text)
    return parsed


def test_a_json_line_has_the_keys_that_pipelines_read() -> None:
    assert line(record(request_id="r-1", endpoint="a:8000", score=0.5)) == {
        "level": "info",
        "time": "2023-11-14T22:13:20.250000000Z",
        "logger": "epp.director",
        "caller": "epp/director.py:42",
        "msg": "endpoint picked",
        "x-request-id": "r-1",
        "endpoint": "a:8000",
        "score": 0.5,
    }


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (50, "error"),
        (40, "error"),
        (30, "warning"),
        (20, "info"),
        (18, "info"),
        (15, "info"),
        (10, "debug"),
        (5, "trace"),
        (1, "trace"),
    ],
)
def test_levels_are_lower_case_words(number: int, expected: str) -> None:
    assert level_name(number) == expected


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("epoch", 1_700_000_000.25),
        ("millis", 1_700_000_000_250.0),
        ("nano", 1_700_000_000_250_000_000),
        ("iso8601", "2023-11-14T22:13:20.250Z"),
        ("rfc3339", "2023-11-14T22:13:20Z"),
        ("rfc3339nano", "2023-11-14T22:13:20.250000000Z"),
    ],
)
def test_time_encodings(encoding: TimeEncoding, expected: object) -> None:
    assert line(record(), encoding)["time"] == expected


def test_every_time_encoding_is_tested_and_others_are_refused() -> None:
    assert len(get_args(TimeEncoding)) == 6
    with pytest.raises(ValueError, match="unknown time encoding 'unix'; there are epoch, millis"):
        time_encoder("unix")  # type: ignore[arg-type]


def test_epoch_is_also_written_under_its_old_key() -> None:
    assert line(record(), "epoch")["ts"] == AT
    assert "ts" not in line(record(), "millis")


def raised() -> ValueError:
    try:
        raise ValueError("no")
    except ValueError as error:
        return error


def test_an_error_has_its_text_and_from_the_level_up_its_traceback() -> None:
    written = line(record(logging.ERROR, raised()))
    assert written["error"] == "ValueError: no"
    stack = written["stacktrace"]
    assert isinstance(stack, str)
    assert stack.startswith("Traceback")
    assert stack.endswith("ValueError: no")
    below = line(record(logging.WARNING, raised()))
    assert below["error"] == "ValueError: no"
    assert "stacktrace" not in below


def test_a_stack_is_written_from_the_level_up() -> None:
    assert line(record(logging.ERROR, stack="f\n\tx.py:1"))["stacktrace"] == "f\n\tx.py:1"
    assert "stacktrace" not in line(record(logging.WARNING, stack="f\n\tx.py:1"))


def test_a_field_cannot_replace_a_key_of_the_record() -> None:
    written = line(record(msg="mine", time=1))
    assert (written["msg"], written["msg_"], written["time_"]) == ("endpoint picked", "mine", 1)


@pytest.mark.parametrize("name", ["prompt", "body", "authorization", "token", "messages"])
def test_secret_fields_are_masked_whoever_passes_them(name: str) -> None:
    assert line(record(**{name: "Bearer s3cret"}))[name] == "[redacted]"


class Opaque:
    def __str__(self) -> str:
        return "opaque"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(Opaque(), "opaque", id="any object"),
        pytest.param("a\udcffb", "a\ufffdb", id="undecodable bytes"),
        pytest.param(2**80, str(2**80), id="a huge number"),
        pytest.param({"a": 1}, {"a": 1}, id="an explicit map"),
        pytest.param(["a", "b"], ["a", "b"], id="a list"),
        pytest.param("two\nlines", "two\nlines", id="line ends stay inside"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_any_value_can_be_written(value: object, expected: object) -> None:
    assert line(record(value=value))["value"] == expected


def test_what_json_cannot_hold_does_not_spoil_the_other_fields() -> None:
    assert orjson.loads(to_json({"a": 1.5, "b": True, "c": None, "d\udc80": "\ud800"})) == {
        "a": 1.5,
        "b": True,
        "c": None,
        "d\ufffd": "\ufffd",
    }


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=()))))
def test_no_text_breaks_a_line(fields: dict[str, str]) -> None:
    assert isinstance(line(record(request_id="r", **{f"f_{k}": v for k, v in fields.items()})), dict)


def test_a_console_line_is_tab_separated() -> None:
    encode = ConsoleEncoder("rfc3339", logging.ERROR, coloured=False)
    text = encode(record(request_id="r-1", n=1)).decode()
    assert text == (
        '2023-11-14T22:13:20Z\tINFO\tepp.director\tepp/director.py:42\tendpoint picked\t{"x-request-id":"r-1","n":1}\n'
    )


def test_a_console_line_without_fields_ends_after_the_message() -> None:
    text = ConsoleEncoder("epoch", logging.ERROR, coloured=False)(record()).decode()
    assert text == "1700000000.25\tINFO\tepp.director\tepp/director.py:42\tendpoint picked\n"


def test_a_console_error_is_followed_by_its_stack_and_coloured_on_request() -> None:
    text = ConsoleEncoder("rfc3339", logging.ERROR, coloured=True)(record(logging.ERROR, stack="f\n\tx.py:1")).decode()
    assert "\x1b[31mERROR\x1b[0m" in text
    assert text.endswith("endpoint picked\nf\n\tx.py:1\n")
