"""Expressions over the usage: grammar, values, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.response.expression import EvaluationError, ExpressionError, MissingMemberError, compile_expression

USAGE = {"prompt_tokens": 7.0, "completion_tokens": 10.0, "prompt_tokens_details": {"cached_tokens": 4.0}}


def value(text: str) -> object:
    return compile_expression(text, "usage")({"usage": USAGE})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("usage.completion_tokens", 10),
        ("usage.prompt_tokens + usage.completion_tokens\n", 17),
        ("usage['prompt_tokens']", 7),
        ("usage.prompt_tokens_details.cached_tokens", 4),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7 % 4", 3),
        ("-7 % 4", -3),
        ("usage.prompt_tokens / 2", 3.5),
        ("usage.prompt_tokens * 2", 14),
        ("usage.prompt_tokens % 4", 3),
        ("1.5e1 + .5", 15.5),
        ("--3", 3),
        ("-usage.prompt_tokens", -7),
        ("int(usage.prompt_tokens / 2)", 3),
        ("double(3) / 2", 1.5),
        ("usage.prompt_tokens > 5", True),
        ("usage.prompt_tokens >= 7 && usage.prompt_tokens <= 7", True),
        ("usage.prompt_tokens == 7 || false", True),
        ("usage.prompt_tokens != 7", False),
        ("'a' < \"b\"", True),
        ("!true", False),
        ("!!true", True),
        ("has(usage.prompt_tokens)", True),
        ("has(usage.other)", False),
        ("has(usage.other.deeper)", False),
        ("has(usage['other'])", False),
        ("has(usage.prompt_tokens_details.cached_tokens) ? 1 : 2", 1),
        ("has(usage.other) ? usage.other : 0", 0),
        ("true ? 1 : false ? 2 : 3", 1),
        ("false ? 1 : false ? 2 : 3", 3),
        ("(has(usage.prompt_tokens) ? usage.prompt_tokens : 0) + (has(usage.other) ? usage.other : 0)", 7),
        ("true || usage.other", True),
        ("usage.other || true", True),
        ("false && usage.other", False),
        ("usage.other && false", False),
        ("1 // a comment", 1),
        ("null == null", True),
    ],
)
def test_values(text: str, expected: object) -> None:
    result = value(text)
    assert result == expected
    assert isinstance(result, bool) == isinstance(expected, bool)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unexpected end at character 1"),
        ("1 +", "unexpected end at character 4"),
        ("(1", "unexpected end at character 3"),
        ("1)", "unexpected ')' at character 2"),
        ("1 2", "unexpected '2' at character 3"),
        ("a ? b", "nothing called 'a' at character 1"),
        ("true ? 1", "unexpected end at character 9"),
        ("response.x", "nothing called 'response' at character 1; there is 'usage'"),
        ("usage.", "unexpected end at character 7"),
        ("usage[1]", "unexpected '1' at character 7"),
        ("size(usage)", "no function 'size' at character 1"),
        ("has(usage)", "has() needs a member such as usage.x"),
        ("has(1)", "has() needs a member such as usage.x"),
        ("1 = 2", "unexpected '=' at character 3"),
        ("'a", 'unexpected "\'" at character 1'),
        ("#", "unexpected '#' at character 1"),
        ("!-1", "! and - do not go together"),
        ("(" * 100 + "1" + ")" * 100, "nested more than 40 deep"),
        ("+".join("1" * 300), "longer than 400 words"),
    ],
)
def test_what_is_no_expression(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, "usage")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "zero"),
        ("1 % 0", "math domain error"),
        ("usage.prompt_tokens / 0", "zero"),
        ("true + 1", "True is no number"),
        ("'a' + 1", "'a' is no number"),
        ("'a' < 1", "'a' is no number"),
        ("usage + 1", "is no number"),
        ("!1", "1 is neither true nor false"),
        ("1 && true", "1 is neither true nor false"),
        ("1 ? 2 : 3", "1 is neither true nor false"),
        ("int(1e308 * 10)", "inf is no integer"),
    ],
)
def test_what_has_no_value(text: str, words: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        value(text)
    assert not isinstance(caught.value, MissingMemberError)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["usage.other", "usage.prompt_tokens.deeper", "usage.other + 1", "true && usage.other"])
def test_missing_members(text: str) -> None:
    with pytest.raises(MissingMemberError):
        value(text)


@given(st.text(alphabet="usage.prompt_tokens()+-*/%<>=!&|?: 0123456789'\"[]", max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        evaluate = compile_expression(text, "usage")
    except ExpressionError:
        return
    try:
        evaluate({"usage": USAGE})
    except EvaluationError:
        return
