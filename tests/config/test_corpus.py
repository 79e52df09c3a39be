"""Every sample configuration has exactly the findings that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epp.config.loaded import ConfigSource, LoadFlags
from epp.errors import ConfigError, Severity
from tests.config.corpus import BAD, GOOD, findings, found_in, lines, load, split


@pytest.mark.parametrize("path", GOOD + BAD, ids=lambda path: path.stem)
def test_findings_are_those_named_in_the_file(path: Path) -> None:
    assert found_in(path) == split(path)[1]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_document_loads(path: Path) -> None:
    instances = load(split(path)[0])
    built = {plugin.name for plugin in instances.config.plugins if plugin.is_built}
    assert set(instances.by_name) == built
    assert all(finding.severity is not Severity.ERROR for finding in instances.config.findings)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_document_has_the_errors_that_its_name_promises(path: Path) -> None:
    codes = {code.upper() for code in re.findall(r"cfg\d+", path.stem)}
    with pytest.raises(ConfigError) as caught:
        load(split(path)[0])
    found = {finding.code for finding in caught.value.findings if finding.severity is Severity.ERROR}
    assert found == (codes or {"CFG052", "CFG053", "CFG061"})


@pytest.mark.parametrize("path", [path for path in GOOD if "warning" in "".join(split(path)[1])], ids=lambda path: path.stem)
def test_warnings_are_errors_when_strict(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(split(path)[0], LoadFlags(strict=True))
    assert {finding.severity for finding in caught.value.findings} <= {Severity.ERROR, Severity.INFO}


OF_THE_DOCUMENT = {"CFG006", "CFG032", "CFG035"}
"""Codes for what is wrong with the YAML, not with a plugin's parameter."""


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_errors_in_parameters_lead_to_the_page_of_the_plugin(path: Path) -> None:
    found = [f for f in findings(ConfigSource.from_text(split(path)[0])) if re.match(r"plugins\[\d+\]\.parameters", f.path)]
    errors = [f for f in found if f.severity is Severity.ERROR and f.code not in OF_THE_DOCUMENT]
    assert [f.message for f in errors if "`epp plugins " not in f.fix] == []


HEADER = b"apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
UNREADABLE = {
    "X95-latin-1": (
        HEADER + b"# caf\xe9\n",
        "epp.yaml:3:6: error CFG003: not UTF-8: byte 0xe9 at offset 83; save the file as UTF-8",
    ),
    "X96-two-mebibytes": (
        b"#" * 2 * 1024 * 1024,
        "epp.yaml: error CFG002: the document has 2097152 bytes; the limit is 1048576; a ConfigMap holds no more than 1 MiB",
    ),
    "X98-utf-16": (
        HEADER.decode().encode("utf-16"),
        "epp.yaml: error CFG003: not UTF-8: the file begins like UTF-16, at byte offset 0; save it as UTF-8",
    ),
}


@pytest.mark.parametrize(("data", "expected"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "text"])
def test_bytes_that_cannot_be_read(data: bytes, expected: str, from_file: bool, tmp_path: Path) -> None:
    source = ConfigSource.from_text(data, "epp.yaml")
    if from_file:
        path = tmp_path / "epp.yaml"
        path.write_bytes(data)
        source = ConfigSource(path=path, name="epp.yaml")
    assert lines(source) == [expected]


def test_x97_a_directory_is_no_file(tmp_path: Path) -> None:
    source = ConfigSource.from_file(tmp_path)
    assert lines(source) == [f"{tmp_path}: error CFG001: cannot read {tmp_path}: Is a directory; name a file"]


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert lines(ConfigSource.from_file(path)) == [
        f"{path}: error CFG001: cannot read {path}: No such file or directory; check the path and its rights"
    ]


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_bytes(HEADER + b"plugins: [{type: queue-scorer}]\n")
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "real.yaml")
    assert load(ConfigSource.from_file(link)).config.plugins[0].name == "queue-scorer"
