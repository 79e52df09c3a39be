"""First word → command; flags only → serve."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "serve": "serve as Envoy's external processor (also when the first argument is a flag)",
    "check": "check configuration files",
    "doctor": "what is wrong with a set-up that runs",
    "explain": "say why a request went where it went, or where it would go",
    "shadow": "what a second configuration would have done with the requests that are served",
    "demo": "model servers, picker and Envoy on this machine, with a live view",
    "simulate": "simulated model servers",
    "replay": "what configurations would do with a recorded load",
    "manifests": "print the Kubernetes manifests of a picker",
    "plugins": "list plugin types, or describe one",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        Its exit status; 2 for a command that does not exist.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("help", "-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    word = arguments[0]
    if word.startswith("-"):
        word, rest = "serve", arguments
    else:
        rest = arguments[1:]
    if word not in COMMANDS:
        print(f"epp: no command {word!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = import_module(f"epp.commands.{word}")
    status: int = command.main(rest)
    return status


def _help() -> str:
    lines = ["usage: epp COMMAND [flags]", ""]
    lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    lines += ["", "`epp COMMAND --help` tells its flags."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
