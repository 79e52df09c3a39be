"""Build what the cluster tests run, from Go modules into a cache folder: kube-apiserver, and helm for the chart.

A module of our own for each program: its ``main`` is the program's, its requirements name one release. Kubernetes requires
its staging modules at ``v0.0.0`` and replaces them by folders of its own repository, which a module that requires it does not
have; so each is replaced by its published release.

    python -m tests.kube.build [apiserver|helm ...]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KUBERNETES = "v1.36.3"
HELM = "v3.19.0"

_APISERVER_MAIN = """package main

import (
	"os"
	_ "time/tzdata"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
"""


def cache_folder() -> Path:
    """Where built programs are kept: outside the checkout, so that a fresh clone finds them."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "endpoint-picker" / "kube"


def apiserver() -> Path:
    """The path of kube-apiserver of `KUBERNETES`, whether it was built or not."""
    return cache_folder() / f"kube-apiserver-{KUBERNETES}"


def helm() -> Path:
    """The path of helm of `HELM`, whether it was built or not."""
    return cache_folder() / f"helm-{HELM}"


def build_apiserver() -> None:
    """Build kube-apiserver: some four minutes on two idle cores. Raises: subprocess.CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.go").write_text(_APISERVER_MAIN)
        _go(folder, "mod", "init", "apiserver")
        described = json.loads(_go(folder, "mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}"))
        required = json.loads(_go(folder, "mod", "edit", "-json", described["GoMod"]))["Require"]
        staging = KUBERNETES.replace("v1.", "v0.")
        edits = [f"-require=k8s.io/kubernetes@{KUBERNETES}"]
        edits += [
            f"-replace={module['Path']}={module['Path']}@{staging}" for module in required if module["Version"] == "v0.0.0"
        ]
        _go(folder, "mod", "edit", *edits)
        _build(folder, ".", apiserver())


def build_helm() -> None:
    """Build helm. Raises: subprocess.CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        _go(folder, "mod", "init", "helm")
        _go(folder, "get", f"helm.sh/helm/v3/cmd/helm@{HELM}")
        _build(folder, "helm.sh/helm/v3/cmd/helm", helm())


def _build(folder: str, package: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    _go(folder, "build", "-mod=mod", "-ldflags", "-s -w", "-o", str(unfinished), package)
    unfinished.replace(target)


def _go(folder: str, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    return subprocess.run(["go", *arguments], cwd=folder, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout


def main(names: list[str]) -> int:
    """Build what is not there yet of the programs named (all when none is). Returns: the exit code."""
    programs = {"apiserver": (apiserver, build_apiserver), "helm": (helm, build_helm)}
    if shutil.which("go") is None:
        print("go is not there: the tests of tests/kube are skipped")
        return 0
    for name in names or programs:
        path, build = programs[name]
        if not path().exists():
            print(f"building {path()}", flush=True)
            build()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
