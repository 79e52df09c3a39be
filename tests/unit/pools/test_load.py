"""Pools files: what they mean, and every mistake with its place and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from epp.commands.check_pools import check_pools
from epp.config.findings import text_line
from epp.config.loaded import ConfigSource, LoadFlags
from epp.config.schema import keys_of
from epp.demo.data_files import data_path
from epp.errors import ConfigError
from epp.plugin_pages.pools_schema import pools_schema
from epp.pools.document import PoolSpec
from epp.pools.load import PoolEntry, PoolsFile, is_pools_file, load_pools
from epp.pools.match import Match
from epp.process.plugin_types import build_registry

HEAD = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerPools\n"


def load(text: str) -> PoolsFile:
    return load_pools(ConfigSource.from_text(HEAD + text, "pools.yaml"))


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return [text_line(finding).removeprefix("pools.yaml:") for finding in caught.value.findings]


def test_all_keys_of_a_pool(tmp_path: Path) -> None:
    file = tmp_path / "pools.yaml"
    file.write_text(
        HEAD
        + """
pools:
- name: chat
  namespace: ai
  group: inference.networking.x-k8s.io
  configFile: chat.yaml
  shadowConfigFile: /etc/next.yaml
  shadowShare: 0.5
  objects: [objects.yaml]
  endpointSelector: app=chat
  targetPorts: [8000, 8001]
  match: {authorities: [Chat.example.com, "*.chat.example.com:8443"], headers: {X-Pool: chat}}
  default: true
  maxBufferedBytes: 10Mi
- name: code
  endpoints: ["127.0.0.1:8000,tier=gold"]
  grpcPort: 9102
"""
    )
    chat, code = load_pools(ConfigSource.from_file(file)).pools
    assert chat == PoolEntry(
        name="chat",
        namespace="ai",
        group="inference.networking.x-k8s.io",
        config_file=str(tmp_path / "chat.yaml"),
        shadow_config_file="/etc/next.yaml",
        shadow_share=0.5,
        objects=(str(tmp_path / "objects.yaml"),),
        endpoint_selector="app=chat",
        target_ports=(8000, 8001),
        match=Match(("chat.example.com", "*.chat.example.com:8443"), (("x-pool", "chat"),)),
        is_default=True,
        max_buffered_bytes=10 * 1024 * 1024,
    )
    assert code == PoolEntry(name="code", endpoints=("127.0.0.1:8000,tier=gold",), grpc_port=9102)


def test_the_only_pool_of_the_shared_port_needs_no_match() -> None:
    assert [pool.is_default for pool in load("pools: [{name: a}, {name: b, grpcPort: 1}]").pools] == [True, False]
    one_match = "pools: [{name: a, match: {authorities: [x]}}]"
    assert [pool.is_default for pool in load(one_match).pools] == [False], "it asks for something"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "error CFG120: pools: pools is missing"),
        ("pools: []", "3:8: error CFG120: pools: there is no pool; write an entry for each: `- name: ...`"),
        ("pools: {name: a}", "error CFG032: pools: expected a list"),
        ("pools: [a]", "error CFG032: pools[0]: expected a mapping"),
        ("pools: [{}]", "error CFG121: pools[0].name: name is missing"),
        ("pools: [{name: a, configfile: x}]", 'unknown field "configfile"; did you mean "configFile"?'),
        ("pools: [{name: A}]", 'error CFG121: pools[0].name: "A" is no name of a pool; use lower case letters'),
        ("pools: [{name: a/b}]", "CFG121"),
        ("pools: [{name: liveness}]", "is what the health service calls the process; choose another one"),
        (
            "pools:\n- {name: a, default: true}\n- {name: a, grpcPort: 1}",
            '5:10: error CFG122: pools[1].name: the name "a" is that of the pool in line 4',
        ),
        (
            "pools: [{name: a, default: true}, {name: b, default: true}]",
            'CFG123: pools[1].default: the pool "a" is the default',
        ),
        ("pools: [{name: a, grpcPort: 1, default: true}]", "CFG124: pools[0].default: is never asked"),
        ("pools: [{name: a, grpcPort: 1, match: {authorities: [x]}}]", "CFG124: pools[0].match: is never asked"),
        ("pools: [{name: a, endpointSelector: x=y}]", "CFG124: pools[0].endpointSelector: targetPorts is missing"),
        ("pools: [{name: a, targetPorts: [1]}]", "CFG124: pools[0].targetPorts: it has a meaning only with endpointSelector"),
        (
            'pools: [{name: a, endpointSelector: x=y, targetPorts: [1], endpoints: ["1.2.3.4:5"]}]',
            "CFG124: pools[0].endpointSelector: endpoints names the model servers already",
        ),
        ("pools: [{name: a, shadowShare: 0.5}]", "CFG124: pools[0].shadowShare: there is nothing to show requests to"),
        ("pools: [{name: a, shadowConfigFile: f, shadowShare: 2}]", "use a number from 0 to 1"),
        (
            "pools: [{name: a, default: true}, {name: b}]",
            'CFG125: pools[1]: no request would reach the pool "b"; give it match with authorities or headers, or grpcPort',
        ),
        (
            'pools: [{name: a, match: {authorities: ["*.x"]}}, {name: b, match: {authorities: [y, a.x]}}]',
            'CFG126: pools[1].match.authorities[1]: "a.x" never comes here: the pool "a" above takes it; put the pool',
        ),
        ("pools: [{name: a, match: {authorities: [http://x]}}]", 'CFG127: pools[0].match.authorities[0]: "http://x" is no'),
        ("pools: [{name: a, match: {authorities: x}}]", "write a list: `authorities: [chat.example.com]`"),
        ('pools: [{name: a, match: {headers: {"x y": z}}}]', "is no name of a header"),
        ("pools: [{name: a, match: {headers: {x: 1}}}]", 'expected a string, not the integer 1; quote it: "1"'),
        ("pools: [{name: a, match: {authority: [x]}}]", 'unknown field "authority"; did you mean "authorities"?'),
        ("pools: [{name: a, authorities: [x]}]", "its place is pools[].match.authorities"),
        ("pools: [{name: a, grpcPort: 70000}]", "CFG128: pools[0].grpcPort: 70000 is not a port"),
        ("pools: [{name: a, grpcPort: 1}, {name: b, grpcPort: 1}]", 'CFG128: pools[1].grpcPort: 1 is the port of the pool "a"'),
        ("pools: [{name: a, endpointSelector: x, targetPorts: [0]}]", "CFG128: pools[0].targetPorts[0]: 0 is not a port"),
        ("pools: [{name: a, endpointSelector: x, targetPorts: [8, 8]}]", "8 is given twice"),
        ("pools: [{name: a, endpoints: [b]}]", "CFG129: pools[0].endpoints[0]: b: write HOST:PORT"),
        ('pools: [{name: a, endpoints: ["b:1", "b:1"]}]', "CFG129: pools[0].endpoints[1]"),
        ('pools: [{name: a, endpointSelector: "!!", targetPorts: [1]}]', "CFG130: pools[0].endpointSelector"),
        ("pools: [{name: a, group: x}]", "CFG037: pools[0].group: no API group is"),
        ("pools: [{name: a, maxBufferedBytes: -1}]", "CFG090: pools[0].maxBufferedBytes"),
        ("pools: [{name: a, maxBufferedBytes: lots}]", "CFG034"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in line for line in found), found


def test_narrow_before_wide_is_no_mistake() -> None:
    load('pools: [{name: a, match: {authorities: [a.x]}}, {name: b, match: {authorities: ["*.x"]}}]')
    load("pools: [{name: a, match: {authorities: [x], headers: {t: g}}}, {name: b, match: {authorities: [x]}}]")


def test_the_example_of_the_documentation_and_the_one_that_is_shipped_can_be_used() -> None:
    page = (Path(__file__).parents[3] / "docs" / "many-pools.md").read_text()
    text = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    assert [pool.name for pool in load_pools(ConfigSource.from_text(text)).pools] == ["chat", "code", "embeddings", "small"]
    checked = check_pools(
        ConfigSource.from_file(data_path("pools", "pools.yaml")), build_registry()[0], LoadFlags(for_serve=True)
    )
    assert (checked.is_valid, checked.pools, checked.all_findings) == (True, 4, [])


def test_every_key_is_in_the_documentation_and_in_the_schema() -> None:
    page = (Path(__file__).parents[3] / "docs" / "many-pools.md").read_text()
    keys = set(keys_of(PoolSpec))
    assert {key for key in keys if f"`{key}`" not in page} == set()
    definitions: Any = pools_schema()["definitions"]
    assert set(definitions["PoolSpec"]["properties"]) == keys
    validator = jsonschema.Draft7Validator(pools_schema())
    assert not list(validator.iter_errors(yaml.safe_load(data_path("pools", "pools.yaml").read_text())))
    assert list(validator.iter_errors({"kind": "EndpointPickerPools", "pools": [{"name": "a", "nonsense": 1}]}))


def test_an_empty_file_and_one_that_is_no_yaml_are_told() -> None:
    for data, code in ((b"", "CFG001"), (b"pools: [", "CFG005")):
        with pytest.raises(ConfigError) as caught:
            load_pools(ConfigSource.from_text(data))
        assert caught.value.findings[0].code == code


def test_a_configuration_is_no_pools_file() -> None:
    text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    assert not is_pools_file(ConfigSource.from_text(text))
    assert is_pools_file(ConfigSource.from_text(HEAD))
    assert not is_pools_file(ConfigSource.from_text("kind: ["))
    with pytest.raises(ConfigError) as caught:
        load_pools(ConfigSource.from_text(text))
    assert any("pass it with --config-file" in finding.fix for finding in caught.value.findings)
