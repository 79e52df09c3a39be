# ruff: noqa: INP001 — a script of a crate, in no package
"""Pins the crates of this extension, also those that others need: `python crates.py [pin | check | write]`.

The pins are `crates.txt`: name, version and checksum of each crate, without any address, so that they fit every registry.
Cargo's own lock file names its registry and is therefore not kept.

    pin    make the lock file as pinned (asks the registry)
    check  fail if the lock file is not as pinned
    write  pin what the lock file has now, after a deliberate update
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LOCK = HERE / "Cargo.lock"
PINS = HERE / "crates.txt"
PASSES = 5
"""Moving one crate may move others; more passes than crates depend on each other in a row are never needed."""


class Crate(NamedTuple):
    """One version of one crate."""

    name: str
    version: str
    checksum: str


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    commands = {"pin": pin, "check": check, "write": write}
    if len(arguments) != 1 or arguments[0] not in commands:
        say(__doc__ or "")
        return 2
    return commands[arguments[0]]()


def check() -> int:
    """Compare the lock file with the pins."""
    have, want = locked(), pinned()
    for crate in sorted(have - want):
        say(f"{crate.name} {crate.version} ({crate.checksum[:12]}) is locked but not pinned")
    for crate in sorted(want - have):
        say(f"{crate.name} {crate.version} ({crate.checksum[:12]}) is pinned but not locked")
    if have != want:
        say(f"the crates differ from {PINS.name}: run `python crates.py pin`, or `write` if that is meant")
    return int(have != want)


def write() -> int:
    """Pin what is locked."""
    PINS.write_text("".join(" ".join(crate) + "\n" for crate in sorted(locked())))
    return 0


def pin() -> int:
    """Move the lock file to the pinned versions."""
    if LOCK.exists():
        cargo("update", "--workspace")  # a lock file of an earlier checkout does not have the crates that are new
    else:
        cargo("generate-lockfile")
    for _ in range(PASSES):
        different = differing()
        if not different:
            break
        for have, want in different:
            cargo("update", f"{have.name}@{have.version}", "--precise", want.version)
    return check()


def differing() -> list[tuple[Crate, Crate]]:
    """Locked crates and the pinned ones of the same name and the same compatible series."""
    have, want = locked(), pinned()
    wanted = {(crate.name, series(crate.version)): crate for crate in want - have}
    found = []
    for crate in have - want:
        other = wanted.get((crate.name, series(crate.version)))
        if other is not None and other.version != crate.version:
            found.append((crate, other))
    return found


def series(version: str) -> str:
    """What cargo holds to be compatible: the first number that is not 0, and those before it."""
    numbers = version.partition("+")[0].partition("-")[0].split(".")
    place = next((place for place, number in enumerate(numbers) if number != "0"), len(numbers) - 1)
    return ".".join(numbers[: place + 1])


def locked() -> set[Crate]:
    """The crates of the lock file that come from a registry."""
    if not LOCK.exists():
        raise SystemExit(f"there is no {LOCK.name}: run `python crates.py pin`")
    packages = tomllib.loads(LOCK.read_text())["package"]
    return {Crate(item["name"], item["version"], item["checksum"]) for item in packages if "checksum" in item}


def pinned() -> set[Crate]:
    """The crates of the list."""
    return {Crate(*line.split()) for line in PINS.read_text().splitlines()}


def say(text: str) -> None:
    """Tell the user."""
    sys.stderr.write(f"{text}\n")


def cargo(*arguments: str) -> None:
    """Run cargo here."""
    subprocess.run(["cargo", *arguments], cwd=HERE, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
