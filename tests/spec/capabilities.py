"""What cases of the specification wait for."""

from __future__ import annotations

from epp.commands.flag_table import FLAGS
from tests.spec.document import ROOT, Capability


def _has_profile_pages() -> bool:
    return "/debug/pprof/profile" in (ROOT / "docs/operations.md").read_text()


def _follows_its_configuration() -> bool:
    (flag,) = [flag for flag in FLAGS if flag.name == "watch-config-file"]
    return not flag.note


PROFILE_PAGES = Capability("operators' tools: profiles", _has_profile_pages)
HOT_RELOAD = Capability("operators' tools: the watched configuration file", _follows_its_configuration)
