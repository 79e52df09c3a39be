"""Where the data files of this project are: presets and Envoy bootstrap files."""

from __future__ import annotations

from pathlib import Path

DEFAULT_PRESET = "prefix-load"
"""What routes in the demo where nobody says otherwise."""

_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(*parts: str) -> Path:
    """Locate a data file or folder, in a checkout as well as in an installed wheel.

    A wheel carries the checkout's ``config/`` as ``epp/data/``; wheels are always unpacked, so plain paths suffice.

    Args:
        parts: path below ``config/``, for example ``"envoy", "full-duplex.yaml"``; none for the root.

    Raises:
        FileNotFoundError: there is no such file in either place.
    """
    for root in (_PACKAGE / "data", _PACKAGE.parent / "config"):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    wanted = "/".join(parts)
    raise FileNotFoundError(f"data file {wanted!r} is missing: neither epp/data nor config has it; reinstall the package")


def preset_names() -> list[str]:
    """The configurations that come with this project, sorted."""
    return sorted(path.stem for path in data_path("presets").iterdir() if path.suffix == ".yaml")
