"""What a transport is told of the configuration."""

from __future__ import annotations

import pytest

from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from epp.errors import UsageError
from epp.framework.interfaces import Role
from epp.framework.registry import PluginType, Reads, Registry
from epp.process.options import Options
from epp.process.plugin_types import build_registry
from epp.process.transport_settings import transport_settings


def config(**readers: tuple[str, ...]) -> LoadedConfig:
    """Plugins of these names that want these request readers."""
    registry, _ = build_registry()
    types = [
        PluginType(
            type=name,
            roles=frozenset({Role.PRE_REQUEST}),
            summary="Wants to know of bodies.",
            factory=lambda context, params: object(),
            reads=Reads(request_readers=wanted),
        )
        for name, wanted in readers.items()
    ]
    document = ["apiVersion: llm-d.ai/v1alpha1", "kind: EndpointPickerConfig", "plugins:", *(f"- type: {n}" for n in readers)]
    source = ConfigSource.from_text("\n".join(document))
    return load_config(source, Registry((*registry, *types)), LoadFlags(for_serve=True))


PLAIN = Options(secure_serving=False)


def test_request_readers_are_those_that_plugins_want_each_once() -> None:
    assert transport_settings(PLAIN, config(a=("copy",), b=("copy",))).request_readers == ("copy",)
    assert transport_settings(PLAIN, config(a=())).request_readers == ()


def test_a_request_reader_that_there_is_not_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        transport_settings(PLAIN, config(a=("copi",)))
    assert list(caught.value.problems) == [
        'the plugin "a" (a) wants the request reader "copi", which does not exist; did you mean "copy"? (there are: copy)'
    ]
