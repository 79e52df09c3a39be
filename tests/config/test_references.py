"""References between plugins, profiles and data, with doubles; what no in-tree type can break."""

from __future__ import annotations

import pytest

from epp.config.loaded import LoadFlags
from epp.errors import ConfigError
from epp.framework.data import Consumes, DataKey
from epp.framework.interfaces import Role
from epp.framework.registry import Registry
from tests.config.corpus import lines, load
from tests.config.doubles import HEADER, NUMBER, Instance, Refers, plugin_type, registry

TYPES = registry()


def plugins(*entries: str) -> str:
    """A document with these plugins, one a line from line 4 on."""
    return HEADER + "plugins:\n" + "".join(f"  - {entry}\n" for entry in entries)


CASES = {
    "cycle": (
        plugins(
            "{type: bare}",
            "{type: refers, name: a, parameters: {other: b}}",
            "{type: refers, name: b, parameters: {other: c}}",
            "{type: refers, name: c, parameters: {other: a}}",
        ),
        [
            (
                "epp.yaml:5:12: error CFG055: plugins[1].type: plugins need each other in a circle: a → b → c → a; "
                "remove one of these references"
            )
        ],
    ),
    "undeclared-plugin": (
        plugins("{type: bare}", "{type: refers, parameters: {other: bear}}"),
        [
            (
                'epp.yaml:5:40: error CFG057: plugins[1].parameters.other: no plugin is named "bear"; did you mean "bare"? '
                "(see `epp plugins refers`)"
            ),
        ],
    ),
    "plugin-of-a-type-that-exists": (
        plugins("{type: refers, parameters: {other: thing}}"),
        [
            (
                'epp.yaml:4:40: error CFG057: plugins[0].parameters.other: no plugin is named "thing"; '
                "declare it: add `- type: thing` to plugins (see `epp plugins refers`)"
            ),
        ],
    ),
    "undeclared-plugin-that-may-be-missing": (
        plugins("{type: refers, parameters: {maybe: nobody}}"),
        [
            (
                'epp.yaml:4:40: warning WRN014: plugins[0].parameters.maybe: no plugin is named "nobody": '
                "maybe has no effect; use refers"
            )
        ],
    ),
    "producer-of-another-role": (
        plugins("{type: bare}", "{type: refers, parameters: {producerName: bare}}"),
        [
            (
                'epp.yaml:5:47: error CFG057: plugins[1].parameters.producerName: the plugin "bare" of type bare is not a data '
                "producer, but a scorer; declare a data producer in plugins and refer to that (see `epp plugins refers`)"
            )
        ],
    ),
    "missing-profile-outside-the-handler": (
        plugins("{type: refers, parameters: {profile: night}}"),
        [
            (
                'epp.yaml:4:42: warning WRN014: plugins[0].parameters.profile: profile of "refers" is "night", '
                'but the profiles are "default": its stage never runs; use default (see `epp plugins refers`)'
            )
        ],
    ),
    "reference-to-a-plugin-of-unknown-type-is-not-judged": (
        plugins("{type: zzz, name: z}", "{type: refers, parameters: {other: z}}"),
        ['epp.yaml:4:12: error CFG052: plugins[0].type: no plugin type is named "zzz"; see --list-plugins for all types'],
    ),
    "reference-to-a-plugin-with-wrong-parameters-is-not-judged": (
        plugins("{type: bare, name: z, parameters: {a: 1}}", "{type: refers, parameters: {other: z}}"),
        [
            (
                'epp.yaml:4:40: error CFG053: plugins[0].parameters.a: unknown parameter "a": bare ("z") takes no parameters; '
                "remove it (see `epp plugins bare`)"
            )
        ],
    ),
    "data-that-nobody-writes": (
        plugins("{type: nothing-reader}"),
        [
            (
                'epp.yaml:4:12: error CFG110: plugins[0].type: the plugin "nothing-reader" needs the data Nothing, '
                "but no plugin writes it; remove the plugin"
            )
        ],
    ),
    "data-whose-producer-needs-parameters": (
        plugins("{type: needy-reader}"),
        [
            (
                'epp.yaml:4:12: error CFG110: plugins[0].type: the plugin "needy-reader" needs the data Needy, '
                "but no plugin writes it; declare a plugin of type needy-producer"
            )
        ],
    ),
    "data-of-another-type": (
        plugins("{type: text-producer}", "{type: number-reader, parameters: {producerName: text-producer}}"),
        [
            (
                'epp.yaml:5:12: error CFG110: plugins[1].type: the plugin "number-reader" reads Number as int, '
                'but "text-producer" writes it as str; use another producer'
            )
        ],
    ),
    "data-that-may-be-missing": (plugins("{type: relaxed-reader}"), []),
    "name-that-a-default-needs": (
        plugins("{type: bare, name: max-score-picker}"),
        [
            (
                'epp.yaml:4:24: error CFG058: plugins[0].name: the name "max-score-picker" is needed for a plugin of type '
                "max-score-picker that is always there, but belongs to one of type bare; choose another name"
            )
        ],
    ),
    "older-and-other-name-of-a-type": (
        plugins("{type: old-thing}", "{type: other-thing}"),
        ["epp.yaml:4:12: warning WRN004: plugins[0].type: old-thing is an older name of thing; write thing"],
    ),
    "experimental": (
        plugins("{type: alpha}"),
        [
            (
                "epp.yaml:4:12: warning WRN017: plugins[0].type: the plugin type alpha is experimental; "
                "llm-d refuses it without a flag; expect changes"
            )
        ],
    ),
    "plugin-without-effect": (
        plugins("{type: bare}", "{type: bare, name: idle}") + "schedulingProfiles: [{name: p, plugins: [{pluginRef: bare}]}]\n",
        [
            (
                'epp.yaml:5:12: info INF004: plugins[1]: nothing refers to the plugin "idle": it does nothing; '
                "refer to it or remove it"
            )
        ],
    ),
    "twice-in-a-profile": (
        plugins("{type: bare}") + "schedulingProfiles: [{name: p, plugins: [{pluginRef: bare}, {pluginRef: bare}]}]\n",
        [
            (
                'epp.yaml:5:73: warning WRN014: schedulingProfiles[0].plugins[1].pluginRef: the profile "p" refers '
                'to "bare" twice, so that it counts twice; remove one reference'
            )
        ],
    ),
    "weight-of-a-picker": (
        plugins("{type: max-score-picker}")
        + "schedulingProfiles: [{name: p, plugins: [{pluginRef: max-score-picker, weight: 2}]}]\n",
        [
            (
                'epp.yaml:5:80: warning WRN015: schedulingProfiles[0].plugins[0].weight: the weight of "max-score-picker" '
                "has no effect: it is no scorer; remove the weight"
            )
        ],
    ),
    "empty-profile": (
        plugins("{type: bare}") + "schedulingProfiles: [{name: p, plugins: []}]\n",
        [
            (
                'epp.yaml:4:12: info INF004: plugins[0]: nothing refers to the plugin "bare": it does nothing; '
                "refer to it or remove it"
            ),
            (
                'epp.yaml:5:22: warning WRN015: schedulingProfiles[0]: the profile "p" has no plugins: endpoints are '
                "chosen at random; refer to a scorer"
            ),
        ],
    ),
    "misspelt-required-key-is-said-once": (
        plugins("{tpye: bare}"),
        ['epp.yaml:4:6: error CFG031: plugins[0].tpye: unknown field "tpye"; did you mean "type"?'],
    ),
    "empty-name": (
        plugins('{type: bare, name: ""}'),
        ['epp.yaml:4:24: error CFG035: plugins[0].name: the name "" is empty; choose another name'],
    ),
    "control-character-in-name": (
        plugins('{type: bare, name: "a\\tb"}'),
        ['epp.yaml:4:24: error CFG035: plugins[0].name: the name "a\\tb" contains a control character; choose another name'],
    ),
    "priority-out-of-range": (
        plugins("{type: bare}") + "flowControl: {priorityBands: [{priority: 2147483648}]}\n",
        [
            (
                "epp.yaml:5:1: warning WRN010: flowControl: flowControl is given, but the feature gate flowControl is off: "
                "it does nothing; write `featureGates: [flowControl]`"
            ),
            (
                "epp.yaml:5:42: error CFG035: flowControl.priorityBands[0].priority: 2147483648 is no priority; "
                "use a 32-bit integer"
            ),
        ],
    ),
    "replica-exchange": (
        plugins("{type: bare}") + "dataLayer: {crossReplicaSyncerPluginRef: bare, crossReplicaSyncInterval: 5s}\n",
        [
            (
                "epp.yaml:5:13: warning WRN007: dataLayer.crossReplicaSyncerPluginRef: crossReplicaSyncerPluginRef "
                "has no effect: replicas do not exchange state; remove it"
            ),
            (
                "epp.yaml:5:48: warning WRN007: dataLayer.crossReplicaSyncInterval: crossReplicaSyncInterval has no effect: "
                "replicas do not exchange state; remove it"
            ),
        ],
    ),
    "source-without-extractors": (
        plugins("{type: text-source}") + "dataLayer: {sources: [{pluginRef: text-source}]}\n",
        [
            (
                'epp.yaml:5:35: warning WRN024: dataLayer.sources[0]: the source "text-source" has no extractors: '
                "what it reads is thrown away; add extractors"
            ),
        ],
    ),
    "extractor-of-another-input": (
        plugins("{type: bare}", "{type: text-source}", "{type: numbers-extractor}")
        + "dataLayer: {sources: [{pluginRef: text-source, extractors: [{pluginRef: numbers-extractor}]}]}\n",
        [
            (
                'epp.yaml:6:12: error CFG084: plugins[2].type: the extractor "numbers-extractor" reads numbers, '
                'but the source "text-source" gives text; use another extractor'
            )
        ],
    ),
    "W8 two-extractors-of-one-type": (
        plugins("{type: bare}", "{type: text-source}", "{type: numbers-extractor}", "{type: numbers-extractor, name: n}")
        + "dataLayer: {sources: [{pluginRef: text-source, extractors: [{pluginRef: numbers-extractor}, {pluginRef: n}]}]}\n",
        [
            (
                "epp.yaml:8:105: error CFG084: dataLayer.sources[0].extractors[1].pluginRef: the source has two extractors "
                'of type numbers-extractor: "numbers-extractor" and "n"; remove one of them'
            )
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_findings(text: str, expected: list[str]) -> None:
    found = [line for line in lines(text, types=TYPES) if "no filter, scorer or picker is declared" not in line]
    assert found == expected


def test_experimental_types_can_be_refused() -> None:
    assert lines(plugins("{type: alpha}"), LoadFlags(allow_experimental=False), TYPES) == [
        (
            "epp.yaml:4:12: error CFG049: plugins[0].type: the plugin type alpha is experimental, and "
            "--allow-experimental-plugins is false; allow experimental plugins, or remove it"
        )
    ]


def test_a_factory_gets_the_instances_that_it_names() -> None:
    text = plugins("{type: refers, name: a, parameters: {other: b}}", "{type: bare, name: b}")
    instances = load(text, types=TYPES)
    assert list(instances.by_name)[:2] == ["a", "b"]
    assert instances.config.creation_order[:2] == ("b", "a")
    first = instances.by_name["a"]
    assert isinstance(first, Instance)
    assert first.context.plugin("b") is instances.by_name["b"]
    assert first.context.profiles == ("default",)


def test_producers_of_required_data_are_added_transitively() -> None:
    needs_number = TYPES.get("number-reader")
    assert needs_number is not None
    types = registry(
        plugin_type("second", Role.DATA_PRODUCER, produces=(), consumes=needs_number.consumes),
    )
    config = load(plugins("{type: second}"), types=types).config
    assert "number-producer" in config.added
    assert config.creation_order.index("number-producer") < config.creation_order.index("second")


def test_a_renamed_producer_of_the_usual_type_is_used() -> None:
    config = load(plugins("{type: number-reader}", "{type: number-producer, name: mine}"), types=TYPES).config
    assert config.plugin("number-reader").needs == {"mine"}
    assert "number-producer" not in config.added


def test_a_producer_is_added_when_a_parameter_names_its_type() -> None:
    config = load(plugins("{type: refers, parameters: {producerName: number-producer}}"), types=TYPES).config
    assert "number-producer" in config.added


def test_another_type_that_writes_the_data_is_used_before_one_is_added() -> None:
    config = load(plugins("{type: number-reader}", "{type: gated}"), types=TYPES).config
    assert config.plugin("number-reader").needs == {"gated"}
    assert "number-producer" not in config.added


def test_factories_are_told_who_writes_their_data() -> None:
    instances = load(plugins("{type: number-reader}", "{type: number-producer, name: mine}"), types=TYPES)
    reader = instances.by_name["number-reader"]
    assert isinstance(reader, Instance)
    assert reader.context.key(NUMBER) == NUMBER.by("mine")
    assert reader.context.writer(NUMBER) is instances.by_name["mine"]


@pytest.mark.parametrize(("count", "added"), [(1, False), (2, True)])
def test_data_that_depends_on_parameters_is_produced_when_it_is_read(count: int, added: bool) -> None:
    text = plugins(f"{{type: number-reader-at-times, parameters: {{count: {count}}}}}")
    assert ("number-producer" in load(text, types=TYPES).config.added) is added


def unbuilt_producer() -> Registry:
    """A type whose data nobody writes yet."""
    key: DataKey[int] = DataKey("Later", int, "later-producer")
    return registry(
        plugin_type("later-producer", Role.DATA_PRODUCER, factory=None, produces=(key,)),
        plugin_type("later-reader", consumes=(Consumes(key),)),
        plugin_type("sometimes-reader", params=Refers, consumes=(Consumes(key, required=False),)),
    )


@pytest.mark.parametrize(
    "entry",
    ["{type: later-reader}", "{type: sometimes-reader, parameters: {producerName: later-producer}}"],
    ids=["required", "named"],
)
def test_serving_refuses_a_plugin_whose_data_nobody_writes_yet(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(plugins(entry), LoadFlags(for_serve=True), types=unbuilt_producer())
    ((code, message),) = [(f.code, f.message) for f in caught.value.findings]
    assert code == "CFG059"
    assert message.endswith(
        "needs the data Later, and the plugin type that writes it, later-producer, is not built yet",
    )


def test_checking_only_tells_of_it() -> None:
    config = load(plugins("{type: later-reader}"), types=unbuilt_producer()).config
    assert [f.code for f in config.findings] == ["INF001"]


def test_optional_data_that_nobody_writes_yet_is_no_obstacle() -> None:
    config = load(plugins("{type: sometimes-reader}"), LoadFlags(for_serve=True), types=unbuilt_producer()).config
    assert [p.name for p in config.plugins if p.declared] == ["sometimes-reader"]


def test_what_needs_a_failed_plugin_is_not_created() -> None:
    text = plugins("{type: refusing}", "{type: refers, parameters: {other: refusing}}")
    with pytest.raises(ConfigError) as caught:
        load(text, types=TYPES)
    assert [finding.path for finding in caught.value.findings] == ["plugins[0].parameters"]


def test_an_empty_registry_still_loads() -> None:
    config = load(HEADER, types=Registry()).config
    assert config.plugins == ()
    assert config.handler == ""
