"""Plugin types for rules that no in-tree type can break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.params import (
    Deprecated,
    DurationS,
    GoDurationS,
    Ignored,
    Int,
    NoParams,
    Params,
    PluginReference,
    ProfileReference,
    Quantity,
)
from epp.framework.registry import Alias, Gate, PluginType, Registry

HEADER = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"


class Nested(Params):
    """A mapping in parameters."""

    depth: Int = Field(default=1, ge=1, le=9)
    api_token: str = ""


class Thing(Params):
    """One parameter of each kind."""

    text: str = Field(default="t", min_length=1)
    count: Int = 1
    ratio: float = 0.5
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    wait: DurationS = 1.0
    go_wait: GoDurationS = 1.0
    size: Quantity = 0
    names: list[str] = Field(default_factory=list)
    nested: Nested = Field(default_factory=Nested)
    many: list[Nested] = Field(default_factory=list)
    by_name: dict[str, Int] = Field(default_factory=dict)
    password: str = ""
    old: Annotated[str, Ignored("it is decided elsewhere")] = ""
    older: Annotated[str, Deprecated("write text")] = ""


class Refers(Params):
    """References to plugins and profiles."""

    other: Annotated[str, PluginReference()] = ""
    maybe: Annotated[str, PluginReference(Role.SCORER, required=False)] = ""
    producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = ""
    profile: Annotated[str, ProfileReference(required=False)] = ""


class Needs(Params):
    """A parameter without a default."""

    value: Int


NUMBER: DataKey[int] = DataKey("Number", int, "number-producer")
NUMBER_AS_TEXT: DataKey[str] = DataKey("Number", str, "text-producer")
NOBODY: DataKey[int] = DataKey("Nothing", int, "nobody")
NEEDY: DataKey[int] = DataKey("Needy", int, "needy-producer")


class Instance:
    """What the factories of doubles make: remembers how it was made."""

    def __init__(self, context: PluginContext, params: Any) -> None:
        self.context = context
        self.params = params


class Source(Instance):
    """A data source of text."""

    output = "text"
    interval_s = None

    async def fetch(self, endpoint: object) -> bytes:
        raise OSError

    async def close(self) -> None: ...


class NumbersExtractor(Instance):
    """An extractor of something else."""

    input = "numbers"

    def extract(self, payload: bytes, endpoint: object, previous: object) -> object:
        raise NotImplementedError


def plugin_type(
    name: str,
    *roles: Role,
    params: type[Params] = NoParams,
    factory: Callable[[PluginContext, Any], object] | None = Instance,
    **more: Any,
) -> PluginType:
    """A type with a factory."""
    return PluginType(name, frozenset(roles or {Role.SCORER}), name, params, factory, **more)


def _refuse(context: PluginContext, params: Any) -> object:
    raise ValueError("the moon is not full")


def _break(context: PluginContext, params: Any) -> object:
    raise RuntimeError("boom")


def _warn(context: PluginContext, params: Any) -> object:
    context.warn("count", f"count {params.count} is taken as 1")
    return Instance(context, params)


def registry(*more: PluginType) -> Registry:
    """Doubles, with the few types that every document needs."""
    return Registry(
        [
            plugin_type("single-profile-handler", Role.PROFILE_HANDLER),
            plugin_type("max-score-picker", Role.PICKER),
            plugin_type("thing", params=Thing, aliases=(Alias("old-thing", deprecated=True), Alias("other-thing"))),
            plugin_type("bare"),
            plugin_type("refers", params=Refers),
            plugin_type("needs", params=Needs),
            plugin_type("refusing", factory=_refuse),
            plugin_type("breaking", factory=_break),
            plugin_type("warning", params=Thing, factory=_warn),
            plugin_type("unbuilt", factory=None, wait="spring"),
            plugin_type("unbuilt-filter", Role.FILTER, factory=None),
            plugin_type("alpha", experimental=True),
            plugin_type("gated", Role.DATA_PRODUCER, gate=Gate.PREPARE_DATA, produces=(NUMBER,)),
            plugin_type("number-producer", Role.DATA_PRODUCER, produces=(NUMBER,)),
            plugin_type("text-producer", Role.DATA_PRODUCER, produces=(NUMBER_AS_TEXT,)),
            plugin_type("needy-producer", Role.DATA_PRODUCER, params=Needs, produces=(NEEDY,)),
            plugin_type("number-reader", params=Refers, consumes=(Consumes(NUMBER),)),
            plugin_type(
                "number-reader-at-times", params=Thing, consumes=(Consumes(NUMBER, when=lambda params: params.count > 1),)
            ),
            plugin_type("nothing-reader", consumes=(Consumes(NOBODY),)),
            plugin_type("needy-reader", consumes=(Consumes(NEEDY),)),
            plugin_type("relaxed-reader", consumes=(Consumes(NOBODY, required=False),)),
            plugin_type("text-source", Role.DATA_SOURCE, factory=Source),
            plugin_type("numbers-extractor", Role.EXTRACTOR, factory=NumbersExtractor),
            *more,
        ]
    )
