"""The command line of ``epp serve``: GNU syntax as Go's pflag has it, environment twins, grouped help.

``argparse`` cannot take a boolean with an optional separate value, nor ``-v3``; so flags are read here, from one table.
Precedence: flag, then ``EPP_<FLAG>``, then default. An empty value is the same as none: Helm renders such.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from epp.commands.flag_table import BOOL, BYTES, DURATION, FALSE, FLAGS, SPEC, TRUE, Flag
from epp.config.environment import VARIABLES
from epp.discovery.selector import check_selector
from epp.errors import UsageError
from epp.framework.params import format_duration, parse_duration
from epp.process.options import MIN_REFRESH_S, Options, check, warnings

_BY_NAME = {flag.name: flag for flag in FLAGS}
_HELP_COLUMN = 52
_PREDICTION = frozenset({"PREDICTION_SERVER_URL", "TRAINING_SERVER_URL"})
"""Of a side-car that predicts latency, as other pickers have it; with ``LATENCY_*``."""
_VERBOSITY = re.compile(r"-v(?:=(?P<equal>.*)|(?P<glued>-?\d+))?")
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")
"""What Kubernetes puts into ``EPP_METRICS_PORT`` beside a Service that is called ``epp-metrics``."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a command line asks for."""

    options: Options
    warnings: tuple[str, ...]
    given: Mapping[str, str]
    """Flags that were given, by name, for the log."""
    action: str = ""
    """``help`` or ``version`` instead of serving."""


class _Given(NamedTuple):
    """The texts that were given for a flag."""

    flag: Flag
    origin: str
    """``--flag`` or its environment variable."""
    texts: list[str]

    @property
    def effective(self) -> list[str]:
        """The texts that count: the last one, or all of a flag that repeats; empty ones are none."""
        texts = self.texts if self.flag.repeats else self.texts[-1:]
        return [text for text in texts if text]


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> CommandLine:
    """Read flags and environment.

    Raises:
        UsageError: with all problems.
    """
    tokens = _Tokens(argv)
    if tokens.action:
        return CommandLine(Options(), (), {}, tokens.action)
    reader = _Reader(tokens.problems, tokens.warnings)
    given = reader.from_environment(environ)
    given.update({name: _Given(_BY_NAME[name], f"--{name}", texts) for name, texts in tokens.texts.items()})
    for each in given.values():
        reader.read(each)
    reader.complete(environ)
    options = Options(**reader.values)
    problems = [*reader.problems, *check(options)]
    if problems:
        raise UsageError(problems)
    notes = [*reader.notes, *warnings(options), *_without_cluster(given, options)]
    return CommandLine(options, tuple(notes), {name: ",".join(each.texts) for name, each in given.items()})


def _without_cluster(given: Mapping[str, _Given], options: Options) -> list[str]:
    if options.needs_kubernetes or options.pools_file:
        return []
    needing = [each.origin for each in given.values() if each.flag.kubernetes and each.effective]
    return [f"{origin} has no effect without --pool-name or --endpoint-selector" for origin in needing]


class _Reader:
    """Turns texts into the fields of Options."""

    def __init__(self, problems: list[str], notes: list[str]) -> None:
        self.problems = problems
        self.notes = notes
        self.values: dict[str, Any] = {}
        self._specs: dict[str, str] = {}

    def from_environment(self, environ: Mapping[str, str]) -> dict[str, _Given]:
        """The flags whose variables are set."""
        given: dict[str, _Given] = {}
        for flag in FLAGS:
            text = environ.get(flag.env)
            if not text:
                continue
            if _SERVICE_LINK.match(text):
                self.notes.append(f"{flag.env} is ignored: Kubernetes sets it for a Service of that name")
                continue
            given[flag.name] = _Given(flag, flag.env, [text])
        return given

    def read(self, given: _Given) -> None:
        """Read one flag."""
        flag, texts = given.flag, given.effective
        if flag.kind is SPEC:
            self._specs[flag.field] = flag.kind.read(given.texts[-1])
            self.notes.append(
                f"{given.origin} sets a metric of the default engine; engineConfigs in the configuration say it better"
            )
            return
        read = []
        for text in texts:
            try:
                read.append(flag.kind.read(text))
            except ValueError as error:
                self.problems.append(f"invalid value {json.dumps(text)} for {given.origin}: {error}")
                return
        if not read:
            return
        if flag.note and read[-1] is not False:
            self.notes.append(f"{given.origin}: {flag.note}")
        self.values[flag.target] = tuple(read) if flag.repeats else read[-1]

    def complete(self, environ: Mapping[str, str]) -> None:
        """Values that depend on each other, and variables that are no twins of flags."""
        values = self.values
        values.pop("zap_devel", None)
        zap_verbosity = values.pop("zap_verbosity", None)
        if values.get("verbosity", 0) < 0:
            values["verbosity"] = Options().verbosity
        elif zap_verbosity is not None:
            values.setdefault("verbosity", zap_verbosity)
        if self._specs:
            values["metric_specs"] = self._specs
        self._interval()
        if selector := values.get("endpoint_selector"):
            self.problems += [f"--endpoint-selector: {problem}" for problem in check_selector(selector)]
        values["namespace"] = values.get("pool_namespace") or environ.get("NAMESPACE") or "default"
        values["pod_name"] = environ.get("POD_NAME", "")
        values["node_name"] = environ.get("NODE_NAME", "")
        values["older_environment"] = {name: environ[name] for name in VARIABLES if environ.get(name)}
        unused = [name for name in environ if name in _PREDICTION or name.startswith("LATENCY_")]
        self.notes += [f"{name} has no effect: latency is predicted in this process" for name in sorted(unused)]
        grace = environ.get("EPP_GRACEFUL_SHUTDOWN_TIMEOUT")
        if grace:
            try:
                values["graceful_shutdown_timeout_s"] = parse_duration(grace)
            except ValueError as error:
                self.problems.append(f"EPP_GRACEFUL_SHUTDOWN_TIMEOUT: {error}")

    def _interval(self) -> None:
        interval_s = self.values.get("refresh_metrics_interval_s")
        if interval_s is None:
            return
        self.values["refresh_metrics_interval_is_given"] = True
        if interval_s <= 0:
            self.problems.append("--refresh-metrics-interval must be positive, such as 50ms")
        elif interval_s < MIN_REFRESH_S:
            least = format_duration(MIN_REFRESH_S)
            self.notes.append(f"--refresh-metrics-interval {format_duration(interval_s)} is raised to {least}")
            self.values["refresh_metrics_interval_s"] = MIN_REFRESH_S


class _Tokens:
    """Splits a command line into flags and texts."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.texts: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.action = ""
        rest = list(argv)
        while rest and not self.action:
            token = rest.pop(0)
            if token == "--":
                self.problems += [_unexpected(argument) for argument in rest]
                return
            self._token(token, rest)

    def _token(self, token: str, rest: list[str]) -> None:
        if token in ("-h", "--help"):
            self.action = "help"
        elif token == "--version":
            self.action = "version"
        elif verbosity := _VERBOSITY.fullmatch(token):
            self._value("v", verbosity["glued"] if verbosity["equal"] is None else verbosity["equal"], rest)
        elif token.startswith("--"):
            name, sign, text = token[2:].partition("=")
            self._long(name, text if sign else None, rest)
        elif token.startswith("-") and len(token) > 2:
            self._unknown(token, f"use -{token}, with two dashes" if _flag_of(token) else "--help lists all flags", rest)
        else:
            self.problems.append(_unexpected(token))

    def _long(self, name: str, text: str | None, rest: list[str]) -> None:
        flag = _BY_NAME.get(name)
        negated = _BY_NAME.get(name.removeprefix("no-"))
        if flag is None and negated is not None and negated.kind is BOOL and text is None:
            self._add(negated, "false")
        elif flag is None:
            near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.6)
            hint = f"did you mean --{near[0]}?" if near else "--help lists all flags"
            self._unknown(f"--{name}" if text is None else f"--{name}={text}", hint, rest)
        elif flag.kind is BOOL and text is None:
            self._bool(flag, rest)
        else:
            self._value(name, text, rest)

    def _unknown(self, token: str, hint: str, rest: list[str]) -> None:
        name, sign, _ = token.partition("=")
        self.problems.append(f"unknown flag: {name}; {hint}")
        if not sign and rest and not rest[0].startswith("-"):
            rest.pop(0)  # most likely its value

    def _bool(self, flag: Flag, rest: list[str]) -> None:
        if rest and rest[0] in TRUE | FALSE:
            text = rest.pop(0)
            self.warnings.append(f"--{flag.name} {text}: write --{flag.name}={text}; Go programs ignore a separate value")
            self._add(flag, text)
        else:
            self._add(flag, "true")

    def _value(self, name: str, text: str | None, rest: list[str]) -> None:
        if text is None:
            if not rest:
                self.problems.append(f"flag needs a value: --{name}")
                return
            text = rest.pop(0)
        self._add(_BY_NAME[name], text)

    def _add(self, flag: Flag, text: str) -> None:
        self.texts.setdefault(flag.name, []).append(text)


def _unexpected(argument: str) -> str:
    return f"unexpected argument {argument!r}; flags begin with --"


def _flag_of(token: str) -> Flag | None:
    """The flag that a token with one dash means."""
    return _BY_NAME.get(token[1:].partition("=")[0].removeprefix("no-"))


def help_text() -> str:
    """All flags by group."""
    defaults = {f.name: getattr(Options(), f.name) for f in fields(Options)}
    lines = ["usage: epp serve [flags]", "", "Serve as Envoy's external processor. Each flag is also read from EPP_<FLAG>.", ""]
    for group in dict.fromkeys(flag.group for flag in FLAGS):
        lines.append(f"{group}:")
        for flag in (f for f in FLAGS if f.group == group):
            left = f"  {'-v, ' if flag.name == 'v' else ''}--{flag.name}{'' if flag.kind is BOOL else f' <{flag.kind.hint}>'}"
            if len(left) > _HELP_COLUMN:
                lines.append(left)
                left = ""
            lines.append(f"{left:<{_HELP_COLUMN}} {flag.help}{_default(flag, defaults)}")
        lines.append("")
    lines.append("  -h, --help, --version")
    return "\n".join(lines)


def _default(flag: Flag, defaults: Mapping[str, Any]) -> str:
    value = defaults.get(flag.target)
    if value is None or value is False or value in ("", ()) or "(default" in flag.help:
        return ""
    if flag.kind is DURATION:
        value = format_duration(value)
    elif flag.kind is BYTES:
        value = _size(value)
    return f" (default {str(value).lower() if value is True else value})"


def _size(count: int) -> str:
    """A number of bytes as it is best written."""
    for suffix, unit in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if count and count % unit == 0:
            return f"{count // unit}{suffix}"
    return str(count)
