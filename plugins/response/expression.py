"""Expressions over the usage of a response: the part of CEL that computes one number or truth value from a few others.

Literals, ``usage`` and its members, ``+ - * / %``, comparisons, ``&& || !``, ``? :``, ``has()``, ``int()``, ``double()``.
Numbers of both kinds may be mixed, unlike in CEL, where usage is ``double`` and ``usage.prompt_tokens * 2`` has no overload.
Source: google/cel-spec: doc/langdef.md.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

Evaluate = Callable[[Mapping[str, object]], object]
"""(variables) → value; raises ``EvaluationError``."""

Number = int | float

MAX_DEPTH = 40
"""Nested parentheses."""
MAX_WORDS = 400
"""Names, numbers and signs; longer chains of operators would nest too deep when they are evaluated."""

_TOKEN = re.compile(
    r"(?P<blank>\s+|//[^\n]*)"
    r"|(?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<text>\"[^\"\\\n]*\"|'[^'\\\n]*')"
    r"|(?P<sign>&&|\|\||[<>=!]=|[-+*/%<>!?:().\[\]])"
)
_LITERALS = {"true": True, "false": False, "null": None}
_FUNCTIONS = ("has", "int", "double")


class ExpressionError(ValueError):
    """A text that is no expression; says where."""


class EvaluationError(ValueError):
    """An expression without a value for these variables."""


class MissingMemberError(EvaluationError):
    """A member that the response did not report."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def compile_expression(text: str, variable: str) -> Evaluate:
    """What evaluates ``text``.

    Args:
        variable: the only name that it may use.

    Raises:
        ExpressionError: it cannot be read, or uses something that is not there.
    """
    return _Parser(text, variable).whole()


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected {text[at]!r} at character {at + 1}")
        if match.lastgroup != "blank":
            tokens.append(_Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    if len(tokens) > MAX_WORDS:
        raise ExpressionError(f"longer than {MAX_WORDS} words")
    tokens.append(_Token("end", "", at))
    return tokens


class _Parser:
    """Recursive descent; each method reads one level of the grammar and returns what evaluates it."""

    def __init__(self, text: str, variable: str) -> None:
        self._tokens = _tokens(text)
        self._position = 0
        self._variable = variable
        self._depth = 0

    def whole(self) -> Evaluate:
        value = self._expression()
        if self._next.kind != "end":
            raise self._unexpected()
        return value

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _unexpected(self) -> ExpressionError:
        token = self._next
        what = repr(token.text) if token.text else "end"
        return ExpressionError(f"unexpected {what} at character {token.at + 1}")

    def _take(self, *texts: str) -> str:
        """The next sign if it is one of these, else ""."""
        token = self._next
        if token.kind != "sign" or token.text not in texts:
            return ""
        self._position += 1
        return token.text

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._unexpected()

    def _expression(self) -> Evaluate:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"nested more than {MAX_DEPTH} deep at character {self._next.at + 1}")
        condition = self._either()
        if self._take("?"):
            yes = self._expression()
            self._expect(":")
            condition = _choice(condition, yes, self._expression())
        self._depth -= 1
        return condition

    def _either(self) -> Evaluate:
        left = self._both()
        while self._take("||"):
            left = _logical(left, self._both(), decisive=True)
        return left

    def _both(self) -> Evaluate:
        left = self._relation()
        while self._take("&&"):
            left = _logical(left, self._relation(), decisive=False)
        return left

    def _relation(self) -> Evaluate:
        left = self._sum()
        while sign := self._take("==", "!=", "<", "<=", ">", ">="):
            left = _comparison(sign, left, self._sum())
        return left

    def _sum(self) -> Evaluate:
        left = self._product()
        while sign := self._take("+", "-"):
            left = _arithmetic(sign, left, self._product())
        return left

    def _product(self) -> Evaluate:
        left = self._signed()
        while sign := self._take("*", "/", "%"):
            left = _arithmetic(sign, left, self._signed())
        return left

    def _signed(self) -> Evaluate:
        negations, minuses = 0, 0
        while sign := self._take("!", "-"):
            negations += sign == "!"
            minuses += sign == "-"
            if negations and minuses:
                raise ExpressionError(f"! and - do not go together, before character {self._next.at + 1}")
        value = self._member()
        if negations:
            value = _not(value) if negations % 2 else _not(_not(value))
        return _minus(value) if minuses % 2 else value

    def _member(self) -> Evaluate:
        value = self._primary()
        while sign := self._take(".", "["):
            token = self._next
            if token.kind != ("name" if sign == "." else "text"):
                raise self._unexpected()
            self._position += 1
            if sign == "[":
                self._expect("]")
            value = _select(value, token.text.strip("'\""))
        return value

    def _selected(self) -> Evaluate:
        """A member, not just a value."""
        begins = self._next
        value = self._member()
        if self._tokens[self._position - 1].text != "]" and self._tokens[self._position - 2].text != ".":
            raise ExpressionError(f"has() needs a member such as {self._variable}.x, at character {begins.at + 1}")
        return value

    def _primary(self) -> Evaluate:
        if self._take("("):
            value = self._expression()
            self._expect(")")
            return value
        token = self._next
        if token.kind not in ("number", "text", "name"):
            raise self._unexpected()
        self._position += 1
        if token.kind == "name":
            return self._named(token)
        if token.kind == "text":
            return _constant(token.text[1:-1])
        return _constant(int(token.text) if token.text.isdigit() else float(token.text))

    def _named(self, token: _Token) -> Evaluate:
        name = token.text
        if name in _LITERALS:
            return _constant(_LITERALS[name])
        if self._take("("):
            if name not in _FUNCTIONS:
                allowed = ", ".join(_FUNCTIONS)
                raise ExpressionError(f"there is no function {name!r} at character {token.at + 1}; there are {allowed}")
            value = _has(self._selected()) if name == "has" else _converted(name, self._expression())
            self._expect(")")
            return value
        if name != self._variable:
            raise ExpressionError(f"there is nothing called {name!r} at character {token.at + 1}; there is {self._variable!r}")
        return lambda variables: variables[name]


def _constant(value: object) -> Evaluate:
    return lambda _variables: value


def _select(inner: Evaluate, name: str) -> Evaluate:
    def evaluate(variables: Mapping[str, object]) -> object:
        value = inner(variables)
        if not isinstance(value, Mapping) or name not in value:
            raise MissingMemberError(f"there is no member {name!r}")
        return value[name]

    return evaluate


def _has(inner: Evaluate) -> Evaluate:
    def evaluate(variables: Mapping[str, object]) -> object:
        try:
            inner(variables)
        except MissingMemberError:
            return False
        return True

    return evaluate


def _converted(name: str, inner: Evaluate) -> Evaluate:
    def evaluate(variables: Mapping[str, object]) -> object:
        number = _number(inner(variables))
        if name == "double":
            return float(number)
        if not math.isfinite(number):
            raise EvaluationError(f"{number} is no integer")
        return int(number)

    return evaluate


def _choice(condition: Evaluate, yes: Evaluate, no: Evaluate) -> Evaluate:
    return lambda variables: yes(variables) if _truth(condition(variables)) else no(variables)


def _logical(left: Evaluate, right: Evaluate, *, decisive: bool) -> Evaluate:
    """``||`` or ``&&``: a side that decides alone makes the other one's error irrelevant, whichever side it is."""

    def evaluate(variables: Mapping[str, object]) -> object:
        try:
            if _truth(left(variables)) is decisive:
                return decisive
        except EvaluationError:
            if _truth(right(variables)) is decisive:
                return decisive
            raise
        return _truth(right(variables))

    return evaluate


def _not(inner: Evaluate) -> Evaluate:
    return lambda variables: not _truth(inner(variables))


def _minus(inner: Evaluate) -> Evaluate:
    return lambda variables: -_number(inner(variables))


_ORDER: Mapping[str, Callable[..., object]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _comparison(sign: str, left: Evaluate, right: Evaluate) -> Evaluate:
    compare = _ORDER[sign]

    def evaluate(variables: Mapping[str, object]) -> object:
        a, b = left(variables), right(variables)
        if sign in ("==", "!=") or (isinstance(a, str) and isinstance(b, str)):
            return compare(a, b)
        return compare(_number(a), _number(b))

    return evaluate


def _arithmetic(sign: str, left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(variables: Mapping[str, object]) -> object:
        a, b = _number(left(variables)), _number(right(variables))
        try:
            return _calculate(sign, a, b)
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            raise EvaluationError(f"{a} {sign} {b}: {error}") from error

    return evaluate


def _calculate(sign: str, a: Number, b: Number) -> Number:
    match sign:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            # Towards zero, as in CEL; Python's // goes down.
            return a / b if isinstance(a, float) or isinstance(b, float) else int(math.copysign(abs(a) // abs(b), a * b))
        case _:
            return math.fmod(a, b) if isinstance(a, float) or isinstance(b, float) else int(math.fmod(a, b))


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise EvaluationError(f"{value!r} is neither true nor false")
    return value


def _number(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EvaluationError(f"{value!r} is no number")
    return value
