"""Text fields of forms: found where they lie, whatever stands around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.parsers.multipart import MOST_PARTS, form_fields

TYPE = "multipart/form-data; boundary=XX"
NAMES = frozenset({"model", "prompt"})


def part(name: str, value: bytes, more: str = "", head: str = "Content-Disposition: form-data; ") -> bytes:
    return f'--XX\r\n{head}name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


FILE = part("file", b"RIFF\r\n\r\n--X\r\n\0\xff" * 100, '; filename="a.wav"\r\nContent-Type: audio/wav')
MODEL = part("model", b"whisper")


def values(body: bytes, content_type: str = TYPE) -> dict[str, bytes]:
    return {name: body[start:end] for name, (start, end) in form_fields(content_type, memoryview(body), NAMES).items()}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param(form(MODEL, FILE), {"model": b"whisper"}, id="before a file"),
        pytest.param(form(FILE, MODEL), {"model": b"whisper"}, id="behind a file"),
        pytest.param(
            form(MODEL, part("prompt", "häuser".encode())), {"model": b"whisper", "prompt": "häuser".encode()}, id="two"
        ),
        pytest.param(form(part("model", b"")), {"model": b""}, id="empty"),
        pytest.param(form(part("model", b"a\r\nb")), {"model": b"a\r\nb"}, id="with a line break"),
        pytest.param(form(MODEL, part("model", b"last")), {"model": b"last"}, id="of doubled fields the last"),
        pytest.param(b"preamble\r\n" + form(MODEL), {"model": b"whisper"}, id="behind a preamble"),
        pytest.param(form(part("model", b"x", head="content-disposition: form-data;")), {"model": b"x"}, id="no blank"),
        pytest.param(form(part("model", b"x", "\r\nContent-Type: text/plain")), {"model": b"x"}, id="with a type"),
        pytest.param(form(MODEL).replace(b'"model"', b"model"), {"model": b"whisper"}, id="name without quotes"),
        pytest.param(form(part("model", b"x", '; filename="model"')), {}, id="a file of this name"),
        pytest.param(form(part("file", b"x", '; filename="model"')), {}, id="a file called so"),
        pytest.param(form(part("other", b"x")), {}, id="other fields"),
        pytest.param(MODEL, {}, id="cut off before the end of the field"),
        pytest.param(form(), {}, id="no field"),
        pytest.param(b"", {}, id="nothing"),
        pytest.param(b"--XX", {}, id="a delimiter alone"),
        pytest.param(b'{"model":"m"}', {}, id="JSON"),
    ],
)
def test_fields(body: bytes, found: dict[str, bytes]) -> None:
    assert values(body) == found


@pytest.mark.parametrize(
    ("content_type", "is_found"),
    [
        ('multipart/form-data; boundary="XX"', True),
        ("multipart/form-data;boundary=XX; charset=utf-8", True),
        ("Multipart/Form-Data; Boundary=XX", True),
        ("multipart/form-data; boundary=YY", False),
        ("multipart/form-data", False),
        ("multipart/form-data; boundary=", False),
    ],
)
def test_boundaries(content_type: str, is_found: bool) -> None:
    assert bool(values(form(MODEL), content_type)) is is_found


def test_no_more_parts_are_looked_at_than_a_form_has() -> None:
    fields = [part("other", b"x")] * MOST_PARTS
    assert values(form(*fields[1:], MODEL)) == {"model": b"whisper"}
    assert values(form(*fields, MODEL)) == {}


@given(body=st.lists(st.sampled_from([b"--XX", b"\r\n", b'; name="model"', b"x", b"--", b"; filename="])).map(b"".join))
def test_any_body_is_read_as_far_as_it_is_a_form(body: bytes) -> None:
    for start, end in form_fields(TYPE, memoryview(body), NAMES).values():
        assert 0 <= start <= end <= len(body)
