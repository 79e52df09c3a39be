"""What a transport is told of the configuration."""

from __future__ import annotations

import pytest

from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from epp.errors import UsageError
from epp.framework.interfaces import Role
from epp.framework.params import NoParams, Params
from epp.framework.registry import PluginType, Reads, Registry
from epp.process.options import Options
from epp.process.plugin_types import build_registry
from epp.process.transport_settings import check_readers, transport_settings, with_configs
from epp.seam import Settings


class Numbers(Params):
    """Parameters of a plugin whose reader depends on them."""

    bytes: int = 64


def config(params: type[Params] = NoParams, **readers: tuple[str, ...] | Reads) -> LoadedConfig:
    """Plugins of these names that want these request readers."""
    registry, _ = build_registry()
    types = [
        PluginType(
            type=name,
            roles=frozenset({Role.PRE_REQUEST}),
            summary="Wants to know of bodies.",
            params=params,
            factory=lambda context, params: object(),
            reads=wanted if isinstance(wanted, Reads) else Reads(request_readers=wanted),
        )
        for name, wanted in readers.items()
    ]
    document = ["apiVersion: llm-d.ai/v1alpha1", "kind: EndpointPickerConfig", "plugins:", *(f"- type: {n}" for n in readers)]
    source = ConfigSource.from_text("\n".join(document))
    return load_config(source, Registry((*registry, *types)), LoadFlags(for_serve=True))


PLAIN = Options(secure_serving=False)


def settings_for(*configs: LoadedConfig) -> Settings:
    """What a transport of these is told."""
    return with_configs(transport_settings(PLAIN), configs)


def test_request_readers_are_those_that_plugins_want_each_once() -> None:
    assert settings_for(config(a=("copy",), b=("copy",))).request_readers == ("copy",)
    assert settings_for(config(a=())).request_readers == ()


def test_a_request_reader_can_depend_on_the_parameters_of_its_plugin() -> None:
    reads = Reads(request_readers=("copy",), readers_of=lambda params: (f"prompt-blocks/{params.bytes}/0",))
    found = settings_for(config(Numbers, a=reads, b=reads)).request_readers
    assert found == ("copy", "prompt-blocks/64/0")


PROMPT_BLOCKS = '; did you mean "prompt-blocks/<n>/<n>"?'


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("copi", '; did you mean "copy"?'),
        ("prompt-blocks", PROMPT_BLOCKS),
        ("prompt-blocks/64", PROMPT_BLOCKS),
        ("prompt-blocks/64/x", PROMPT_BLOCKS),
        ("prompt-blocks/0/5", PROMPT_BLOCKS),
    ],
)
def test_a_request_reader_that_there_is_not_is_named_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_readers(config(a=(name,)))
    [problem] = caught.value.problems
    assert problem == (
        f'the plugin "a" (a) wants the request reader "{name}", which does not exist{near} '
        "(there are: copy, prompt-blocks/<n>/<n>)"
    )
