"""The pools file as records: which pools one process serves, and which requests are for which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from epp.config.schema import Headed, Key, Kind, Section


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSpec(Section):
    """``match``: which requests are for the pool. Of what is given, all must fit."""

    authorities: Annotated[
        tuple[str, ...], Key("authorities", Kind.STRINGS, form="write a list: `authorities: [chat.example.com]`")
    ] = ()
    headers: Annotated[dict[str, str] | None, Key("headers", Kind.TEXTS, form="write `headers: {{x-pool: {}}}`")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec(Section):
    """One entry of ``pools``: what the flags of the same names say where a process serves one pool."""

    name: Annotated[str, Key("name", Kind.STRING, required="CFG121")] = ""
    namespace: Annotated[str, Key("namespace", Kind.STRING)] = ""
    group: Annotated[str, Key("group", Kind.STRING)] = ""
    config_file: Annotated[str, Key("configFile", Kind.STRING)] = ""
    shadow_config_file: Annotated[str, Key("shadowConfigFile", Kind.STRING)] = ""
    shadow_share: Annotated[float | None, Key("shadowShare", Kind.NUMBER)] = None
    objects: Annotated[tuple[str, ...], Key("objects", Kind.STRINGS, form="write a list: `objects: [{}]`")] = ()
    endpoints: Annotated[tuple[str, ...], Key("endpoints", Kind.STRINGS, form="write a list: `endpoints: [{}]`")] = ()
    endpoint_selector: Annotated[str, Key("endpointSelector", Kind.STRING)] = ""
    target_ports: Annotated[tuple[int, ...], Key("targetPorts", Kind.INTEGERS, form="write a list: `targetPorts: [{}]`")] = ()
    match: Annotated[
        MatchSpec | None, Key("match", Kind.MAPPING, record=MatchSpec, form="write `match: {{authorities: [{}]}}`")
    ] = None
    default: Annotated[bool | None, Key("default", Kind.BOOLEAN)] = None
    grpc_port: Annotated[int | None, Key("grpcPort", Kind.INTEGER)] = None
    max_buffered_bytes: Annotated[int | None, Key("maxBufferedBytes", Kind.QUANTITY, negative="CFG090")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolsDocument(Headed):
    """The whole file. The order of its pools decides where several fit."""

    pools: Annotated[
        tuple[PoolSpec, ...],
        Key(
            "pools",
            Kind.SECTIONS,
            record=PoolSpec,
            required="CFG120",
            form="write a list of `- name: ...`",
            entry_form="write `- name: {}`",
        ),
    ] = ()
