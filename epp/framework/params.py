"""Plugin parameters: strict pydantic models with the scalar types of the configuration document.

YAML keys are camelCase, Python names snake_case; only this module maps them. Unknown keys are errors. References to other
plugins and to profiles are annotations, so that the loader resolves them without knowing the plugin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from epp.framework.interfaces import Role

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([-+]?\d+))?")
_SUFFIX: dict[str, Decimal | int] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_LARGEST_EXPONENT = 100
_MOST = Decimal(2**63 - 1)


def parse_duration(text: object) -> float:
    """Seconds of a Go duration string such as ``1m30s`` or ``200ms``; ``0`` needs no unit.

    Raises:
        ValueError: anything else, numbers included.
    """
    if isinstance(text, str):
        if text in ("0", "+0", "-0"):
            return 0.0
        if _DURATION.fullmatch(text):
            total = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
            return -total if text[0] == "-" else total
    raise ValueError(f"{text!r} is not a duration; use a string such as 30s, 200ms or 1m30s (days are 24h)")


def format_duration(seconds: float) -> str:
    """The shortest Go duration string of a number of seconds."""
    if seconds == 0:
        return "0s"
    for unit, size in (("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        amount = seconds / size
        if abs(amount) >= 1 and abs(amount - round(amount)) < 1e-9:
            return f"{round(amount)}{unit}"
    return f"{seconds:g}s"


def parse_quantity(value: object) -> int:
    """A Kubernetes quantity (``10Mi``, ``1k``, ``5e3``, a number), rounded up to an integer, at most 2**63 - 1.

    Raises:
        ValueError: not a quantity, or with an exponent that is no use.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value)
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a quantity; use a number, or one with a suffix such as 10Mi or 1k")
    number, suffix, exponent = match.groups()
    power = int(exponent or 0)
    if abs(power) > _LARGEST_EXPONENT:
        raise ValueError("the exponent is too large")
    exact = Decimal(number) * Decimal(_SUFFIX[suffix] if suffix else 1) * Decimal(10) ** power
    return ceil(min(exact, _MOST))


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from error


def _go_duration(value: object) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 1e-9
    return _duration(value)


def _quantity(value: object) -> int:
    try:
        return parse_quantity(value)
    except ValueError as error:
        raise PydanticCustomError("quantity", "{reason}", {"reason": str(error)}) from error


def _integral(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


DurationS = Annotated[float, BeforeValidator(_duration)]
"""Seconds, written as a Go duration string."""
GoDurationS = Annotated[float, BeforeValidator(_go_duration)]
"""Seconds, written as a Go duration string or as an integer number of nanoseconds."""
Quantity = Annotated[int, BeforeValidator(_quantity)]
"""An integer, written as a Kubernetes quantity."""
Int = Annotated[int, BeforeValidator(_integral)]
"""An integer; a float without fraction is accepted (``1e8``)."""


@dataclass(frozen=True, slots=True)
class PluginReference:
    """Marks a parameter whose value is the name of another plugin: ``Annotated[str, PluginReference(Role.DECIDER)]``."""

    role: Role | None = None
    """Role that the plugin must have; None = any."""
    required: bool = True
    """False: an undeclared name is a warning."""


@dataclass(frozen=True, slots=True)
class ProfileReference:
    """Marks a parameter whose value is the name of a SchedulingProfile."""

    required: bool = True
    """False: a missing profile is a warning."""
    when: Callable[[Any], bool] | None = None
    """Tells from the plugin's parameters whether the profile is used at all; None = it is."""
    others_run: bool = False
    """The profile handler also runs profiles that no parameter names."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Marks a parameter that another version knows and that has no effect here; WRN007 where it is used."""

    reason: str


@dataclass(frozen=True, slots=True)
class Deprecated:
    """Marks a parameter that still works and has a better form."""

    advice: str
    """One sentence: what to write instead, or how the value is understood."""
    code: str = "WRN007"
    """Code of the warning."""
    moves_to: str = ""
    """Mapping and key of the same parameters where the same value means the same today: ``profiles.decode``."""


@dataclass(frozen=True, slots=True)
class Former:
    """Marks a parameter that earlier versions called otherwise: that name still works, and WRN007 tells the present one."""

    name: str
    """As in YAML."""


def former_names(info: FieldInfo) -> tuple[str, ...]:
    """The older names of a parameter, as in YAML."""
    return tuple(mark.name for mark in info.metadata if isinstance(mark, Former))


def moved(document: object, key: str, section: str, name: str = "") -> object:
    """A document whose parameter ``key`` also stands where it belongs today, in ``section``; what is given there wins.

    Args:
        document: parameters as in YAML; anything but a mapping stays as it is.
        key: of the older place.
        section: mapping of the present place.
        name: key there; default: the same.
    """
    if not isinstance(document, dict) or not isinstance(document.get(key), str) or not document[key]:
        return document
    present = document.get(section, {})
    return {**document, section: {name or key: document[key], **present}} if isinstance(present, dict) else document


def exclusive(message: str) -> PydanticCustomError:
    """The error of a validator that finds parameters which exclude each other."""
    return PydanticCustomError("exclusive", "{reason}", {"reason": message})


def mixed_forms(message: str) -> PydanticCustomError:
    """The error of a validator that finds the parameters of two forms, of which each is fine alone."""
    return PydanticCustomError("mixed_forms", "{reason}", {"reason": message})


def no_producer(message: str) -> PydanticCustomError:
    """The error of a validator that finds data which no plugin can produce."""
    return PydanticCustomError("no_producer", "{reason}", {"reason": message})


class Params(BaseModel):
    """Base of all parameter models.

    Fields have a ``Field(description=...)`` with unit and meaning; validators raise ``ValueError`` with a sentence that
    says what is allowed, or one of ``exclusive``, ``mixed_forms`` and ``no_producer`` where a finding has its own code. Where
    a required object is missing, its own required fields are reported.

    ``gone`` has the parameters of earlier versions that cannot be honoured: YAML key → what to write instead.
    """

    gone: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _enter_required_objects(cls, document: object) -> object:
        if not isinstance(document, dict):
            return document
        missing: dict[str, object] = {
            info.alias or name: {}
            for name, info in cls.model_fields.items()
            if info.is_required()
            and isinstance(info.annotation, type)
            and issubclass(info.annotation, Params)
            and name not in document
            and info.alias not in document
        }
        return {**document, **missing} if missing else document

    @model_validator(mode="before")
    @classmethod
    def _rename_former(cls, document: object) -> object:
        """Where both names are given the older one stays, and is an unknown key."""
        if not isinstance(document, dict):
            return document
        for name, info in cls.model_fields.items():
            for former in former_names(info):
                if former in document and info.alias not in document and name not in document:
                    document = {(info.alias if key == former else key): value for key, value in document.items()}
        return document

    @classmethod
    def decode(cls, document: dict[str, Any]) -> Params:
        """The parameters of a YAML mapping; only camelCase names are keys there.

        Raises:
            pydantic.ValidationError: with one entry for each wrong key or value.
        """
        return cls.model_validate(document, by_alias=True, by_name=False)


class NoParams(Params):
    """For plugins without parameters."""


@dataclass(frozen=True, slots=True)
class ReferenceUse:
    """A reference found in a parameters object."""

    path: tuple[str, ...]
    """YAML keys below ``parameters``."""
    value: str
    marker: PluginReference | ProfileReference
    given: bool = True
    """The document has it; False = the parameter's default."""


def references(params: BaseModel, path: tuple[str, ...] = ()) -> Iterator[ReferenceUse]:
    """All non-empty references to plugins and profiles in ``params``, also in nested objects and lists of objects.

    The default of a reference to a plugin counts only where such a plugin is declared; nothing is said where it is not.
    """
    for name, info in type(params).model_fields.items():
        value = getattr(params, name)
        where = (*path, info.alias or name)
        if isinstance(value, BaseModel):
            yield from references(value, where)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from references(item, (*where, str(index)))
        elif isinstance(value, str) and value:
            given = name in params.model_fields_set
            yield from (ReferenceUse(where, value, marker, given) for marker in _markers(info.metadata, info.annotation))


def _markers(metadata: list[Any], annotation: object) -> Iterator[PluginReference | ProfileReference]:
    for entry in metadata:
        if isinstance(entry, (PluginReference, ProfileReference)):
            yield entry
    for part in get_args(annotation):
        yield from (m for m in getattr(part, "__metadata__", ()) if isinstance(m, (PluginReference, ProfileReference)))
