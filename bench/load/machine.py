"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.calibration import calibrate
from epp.demo.envoy import find_envoy

_PACKAGES = ("grpcio", "protobuf", "xds-protos", "uvloop", "orjson", "aiohttp")


def describe() -> dict[str, str]:
    """Machine, versions and a calibration figure, as text by name."""
    facts = {
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "calibration": f"{calibrate():.1f} ns per step of a pure-Python loop",
        "python": platform.python_version(),
        "envoy": _envoy_version(),
    }
    return facts | {name: _package_version(name) for name in _PACKAGES}


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _envoy_version() -> str:
    output = subprocess.run([find_envoy(), "--version"], capture_output=True, text=True, check=True).stdout
    return output.partition("version:")[2].strip().split("/")[1]


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
