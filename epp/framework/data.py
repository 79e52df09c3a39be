"""Typed data of a request: written once by a DataProducer, read by many plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Scope(StrEnum):
    """What a data key's value describes."""

    REQUEST = "request"
    ENDPOINT = "endpoint"
    """The value is a mapping from EndpointId, over all candidates of the request."""
    METRICS = "metrics"
    """A column of Candidates, kept current by an extractor."""


@dataclass(frozen=True, slots=True, eq=False)
class DataKey(Generic[T]):
    """Names a piece of data and says what it is.

    The producer part lets two producers of the same kind of data exist side by side; a consumer's
    ``…ProducerName`` parameter chooses (``key.by(name)``). Equal keys are the same object: each request looks up dozens.
    """

    name: str
    value_type: type[T]
    producer: str
    """Instance name of the plugin that writes it; at first the type that is created when nobody does."""
    scope: Scope = Scope.REQUEST

    def __new__(cls, name: str, value_type: type[T], producer: str, scope: Scope = Scope.REQUEST) -> DataKey[T]:
        known = _KEYS.get(parts := (name, value_type, producer, scope))
        if known is None:  # configurations are loaded in threads: whoever comes first makes it
            known = _KEYS.setdefault(parts, object.__new__(cls))
        return cast("DataKey[T]", known)

    def __reduce__(self) -> tuple[type[DataKey[T]], tuple[str, type[T], str, Scope]]:
        return DataKey, (self.name, self.value_type, self.producer, self.scope)

    def by(self, producer: str) -> DataKey[T]:
        """The same data from another producer."""
        return DataKey(self.name, self.value_type, producer, self.scope)

    def __str__(self) -> str:
        return f"{self.name}/{self.producer}"


_KEYS: dict[tuple[str, type[object], str, Scope], DataKey[Any]] = {}
"""All there are; as many as configurations name."""


class OnDemand(Generic[T]):
    """A value that is made when it is first read.

    Args:
        make: makes it; None = there is none. Must not hold the request, whose data hold this.
    """

    __slots__ = ("_make", "value")

    def __init__(self, make: Callable[[], T | None]) -> None:
        self._make: Callable[[], T | None] | None = make
        self.value: T | None = None
        """Once it is made."""

    def read(self) -> T | None:
        """The value.

        Raises:
            Exception: what ``make`` raises, each time.
        """
        if self._make is not None:
            self.value, self._make = self._make(), None
        return self.value


@dataclass(frozen=True, slots=True)
class Consumes:
    """A plugin reads this key; a required one makes the loader create its default producer.

    The producer is the one that a ``…ProducerName`` parameter names, else one of the key's usual name or type, else one of
    the types in ``prefer``, else the first plugin of the configuration that writes the key.
    ``PluginContext.key`` tells the plugin which it was.
    """

    key: DataKey[Any]
    required: bool = True
    prefer: tuple[str, ...] = ()
    """Plugin types, best first."""
    when: Callable[[Any], bool] | None = None
    """Tells from the plugin's parameters whether it is read at all; None = it is."""
    unless: str = ""
    """Plugin type beside which it is not read."""
    undeclared: Callable[[Any], str] | None = None
    """Tells from the plugin's parameters what is amiss where no declared plugin writes it, and after a semicolon what to do;
    "" = nothing."""


class RequestData:
    """The data of one request. A key that nobody wrote reads as None."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[DataKey[object], object] | None = None

    def get(self, key: DataKey[T]) -> T | None:
        """The value of ``key``, or None; one that is made on demand is made."""
        if self._values is None:
            return None
        value = self._values.get(cast("DataKey[object]", key))
        if type(value) is OnDemand:
            value = value.read()
        return cast("T | None", value)

    def made(self, key: DataKey[T]) -> T | None:
        """The value of ``key`` if it is there without being made, or None."""
        if self._values is None:
            return None
        value = self._values.get(cast("DataKey[object]", key))
        if type(value) is OnDemand:
            value = value.value
        return cast("T | None", value)

    def has(self, key: DataKey[Any]) -> bool:
        """``key`` was written."""
        return self._values is not None and cast("DataKey[object]", key) in self._values

    def set(self, key: DataKey[T], value: T | OnDemand[T]) -> None:
        """Write ``key``, or what makes its value when somebody reads it.

        Raises:
            ValueError: it was written before.
        """
        if self._values is None:
            self._values = {}
        plain = cast("DataKey[object]", key)
        if plain in self._values:
            raise ValueError(f"data key {key} was already written for this request")
        self._values[plain] = value

    def share(self, key: DataKey[T], written: DataKey[T]) -> None:
        """Write under ``key`` what was written under another key, made or not.

        Raises:
            KeyError: nothing was. ValueError: ``key`` was written before.
        """
        self.set(key, cast("T", (self._values or {})[cast("DataKey[object]", written)]))

    def discard(self, key: DataKey[Any]) -> None:
        """Forget what was written under ``key``, because it is not true any longer; nothing happens if it was not written."""
        if self._values is not None:
            self._values.pop(cast("DataKey[object]", key), None)

    def overlaid(self, more: Mapping[DataKey[Any], object]) -> RequestData:
        """These data and ``more``; what is written to one of both later is not seen by the other.

        Raises:
            ValueError: one of the keys was written before.
        """
        both = RequestData()
        both._values = dict(self._values or {})
        for key, value in more.items():
            both.set(key, value)
        return both
