"""``epp check FILE...``: whether configuration documents can be used, without contacting anything."""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from epp.commands.check_pools import CheckedPools, check_pools
from epp.config.effective import to_yaml
from epp.config.explained import explained
from epp.config.findings import json_report, text_report
from epp.config.fixes import fix
from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, Instances, LoadFlags
from epp.errors import ConfigError, Finding, Severity
from epp.framework.registry import Registry
from epp.plugin_pages.json_schema import document_schema
from epp.plugin_pages.pools_schema import pools_schema
from epp.pools.load import is_pools_file
from epp.process.plugin_types import build_registry

VALID, INVALID, USAGE = 0, 1, 2
_BOOLEAN = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def main(argv: Sequence[str]) -> int:
    """Check files.

    Returns:
        0 if all are valid, 1 if one is not, 2 for a command line that cannot be used.
    """
    parser = _parser()
    try:
        options = parser.parse_args(list(argv))
        if not options.files and not options.schema:
            parser.error("name a FILE, or - for standard input")
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return VALID if not stop.code else USAGE
    registry, findings = build_registry()
    flags = LoadFlags(
        strict=options.strict_config, allow_experimental=options.allow_experimental_plugins, for_serve=options.for_serve
    )
    if options.schema:
        print(_schema(options.schema, registry))
        return VALID
    valid = True
    for file in options.files:
        source = _source(file)
        if is_pools_file(source):
            checked = check_pools(source, registry, flags)
            findings += checked.all_findings
            valid = valid and checked.is_valid
            _tell_of_pools(file, checked, options)
            continue
        if options.fix:
            _fix(file, registry, flags)
        result, found = _check(source, registry, flags)
        findings += found
        valid = valid and result is not None
        _tell(file, result, found, options)
    if options.output == "json":
        print(json_report(findings))
    elif unloaded := [finding for finding in findings if not finding.file]:
        print(text_report(unloaded), file=sys.stderr)
    return VALID if valid else INVALID


def _schema(of: str, registry: Registry) -> str:
    schema = pools_schema() if of == "pools" else document_schema(registry)
    return json.dumps(schema, indent=2, ensure_ascii=False)


def check_source(source: ConfigSource, flags: LoadFlags, *, print_effective: bool) -> int:
    """The same check of one source, for ``epp serve --check-config``; findings go to standard error.

    Returns:
        0 if it is valid, else 1.
    """
    registry, unloaded = build_registry()
    result, found = _check(source, registry, flags)
    _show(source.name, result, [*unloaded, *found], print_effective=print_effective)
    return INVALID if result is None else VALID


def check_pools_file(file: str, flags: LoadFlags, *, print_effective: bool) -> int:
    """The same check of a pools file, for ``epp serve --check-config``; findings go to standard error.

    Returns:
        0 if it and all documents of its pools are valid, else 1.
    """
    registry, unloaded = build_registry()
    checked = check_pools(ConfigSource.from_file(file), registry, flags)
    if unloaded:
        print(text_report(unloaded), file=sys.stderr)
    _show_pools(file, checked, explain=False, print_effective=print_effective)
    return VALID if checked.is_valid else INVALID


def check_document(file: str) -> bool:
    """Whether a file can be served; what was found in it goes to standard error."""
    registry, unloaded = build_registry()
    result, found = _check(ConfigSource.from_file(file), registry, LoadFlags(for_serve=True))
    if findings := [*unloaded, *found]:
        print(text_report(findings), file=sys.stderr)
    return result is not None


def _tell(file: str, result: Instances | None, found: Sequence[Finding], options: argparse.Namespace) -> None:
    """What a command line asks to be told of a document."""
    if options.explain and result is not None:
        if found:
            print(text_report(found), file=sys.stderr)
        print(f"{file}:\n{explained(result.config)}" if len(options.files) > 1 else explained(result.config), end="")
    elif options.output == "text":
        _show(file, result, found, print_effective=options.print_effective_config)
    elif options.print_effective_config and result is not None:
        print(to_yaml(result.config.effective), file=sys.stderr)


def _tell_of_pools(file: str, checked: CheckedPools, options: argparse.Namespace) -> None:
    """What a command line asks to be told of a pools file."""
    if options.fix:
        print(f"epp check: {file} names pools; --fix repairs documents, so name those", file=sys.stderr)
    if options.output == "text":
        _show_pools(file, checked, explain=options.explain, print_effective=options.print_effective_config)


def _show_pools(file: str, checked: CheckedPools, *, explain: bool, print_effective: bool) -> None:
    if findings := checked.all_findings:
        print(text_report(findings), file=sys.stderr)
    for pool, name, result, _ in checked.documents:
        if result is not None and explain:
            print(f"{pool}, {name}:\n{explained(result.config)}", end="")
        elif result is not None and print_effective:
            print(f"# {pool}, {name}\n{to_yaml(result.config.effective)}---")
    if checked.is_valid and not explain and not print_effective:
        print(_summary_of_pools(file, checked))


def _summary_of_pools(file: str, checked: CheckedPools) -> str:
    warnings = sum(finding.severity is Severity.WARNING for finding in checked.all_findings)
    parts = [_count(checked.pools, "pool"), _count(len(checked.documents), "document"), _count(warnings, "warning")]
    return f"{file}: valid: {', '.join(parts)}"


def _fix(file: str, registry: Registry, flags: LoadFlags) -> None:
    """Repair a file in place; one with errors, or that cannot be read or written, stays as it is, and the check says so."""
    if file == "-":
        print("epp check: --fix writes files; standard input is only checked", file=sys.stderr)
        return
    path = Path(file).resolve()
    lenient = dataclasses.replace(flags, strict=False)
    try:
        data = path.read_bytes()
        fixed = fix(data.decode("utf-8-sig"), file, lambda source: load_config(source, registry, lenient))
    except (OSError, UnicodeDecodeError, ConfigError):
        return
    if not fixed.repaired:
        return
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    try:
        _replace(path, mark + fixed.text.encode())
    except OSError as error:
        print(f"epp check: {file} cannot be written: {error.strerror}", file=sys.stderr)
        return
    for finding in fixed.repaired:
        print(f"{file}: fixed {finding.code}: {finding.message}", file=sys.stderr)


def _replace(path: Path, data: bytes) -> None:
    """Write a file in one step; its mode stays."""
    beside = path.with_name(f".{path.name}.epp-check")
    beside.write_bytes(data)
    beside.chmod(path.stat().st_mode & 0o777)
    beside.replace(path)


def _source(file: str) -> ConfigSource:
    if file == "-":
        return ConfigSource.from_text(sys.stdin.buffer.read(), "<stdin>")
    return ConfigSource.from_file(file)


def _check(source: ConfigSource, registry: Registry, flags: LoadFlags) -> tuple[Instances | None, list[Finding]]:
    try:
        instances = instantiate(load_config(source, registry, flags))
    except ConfigError as error:
        return None, list(error.findings)
    return instances, [*instances.config.findings, *instances.findings]


def _show(file: str, result: Instances | None, findings: Sequence[Finding], *, print_effective: bool) -> None:
    if findings:
        print(text_report(findings), file=sys.stderr)
    if result is None:
        return
    if print_effective:
        print(to_yaml(result.config.effective), end="")
        return
    print(_summary(file, result, findings))


def _summary(file: str, result: Instances, findings: Sequence[Finding]) -> str:
    config = result.config
    unbuilt = sum(plugin.declared and not plugin.is_built for plugin in config.plugins)
    parts = [
        _count(sum(plugin.declared for plugin in config.plugins), "plugin"),
        f"{_count(len(config.profiles), 'profile')} ({', '.join(profile.name for profile in config.profiles)})",
        _count(sum(finding.severity is Severity.WARNING for finding in findings), "warning"),
    ]
    if unbuilt:
        parts.append(f"{unbuilt} not built yet")
    return f"{file}: valid: {', '.join(parts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEAN:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return _BOOLEAN[text.lower()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="epp check",
        description="Check configuration files; nothing is contacted. Exit status: 0 valid, 1 invalid, 2 wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="a configuration document, or a pools file with its documents; - reads standard input",
    )
    parser.add_argument("--fix", action="store_true", help="write older names and forms as today's, in place; comments stay")
    parser.add_argument("--explain", action="store_true", help="say in sentences what the document does")
    parser.add_argument(
        "--schema",
        nargs="?",
        const="config",
        choices=("config", "pools"),
        help="print a JSON Schema of documents for editors, and exit; pools: of pools files",
    )
    parser.add_argument("--for-serve", action="store_true", help="judge as `epp serve` does: refuse types that are not built")
    parser.add_argument("--strict-config", action="store_true", help="warnings count as errors")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="json: all findings as a list")
    parser.add_argument(
        "--allow-experimental-plugins",
        type=_boolean,
        default=True,
        metavar="BOOL",
        help="false refuses plugin types that are experimental (default: true)",
    )
    parser.add_argument("--print-effective-config", action="store_true", help="print the completed document as YAML")
    return parser
