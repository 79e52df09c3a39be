"""What cases of the specification wait for."""

from __future__ import annotations

from epp.commands.flag_table import FLAGS
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.errors import UsageError
from epp.process.options import Options
from epp.process.startup import check_discovery
from tests.config.corpus import registry
from tests.spec.document import ROOT, Capability


def _pools_are_found() -> bool:
    try:
        check_discovery(Options(pool_name="pool"), load_config(ConfigSource.builtin(), registry()))
    except UsageError:
        return False
    return True


def _has_profile_pages() -> bool:
    return "/debug/pprof/profile" in (ROOT / "docs/operations.md").read_text()


def _follows_its_configuration() -> bool:
    (flag,) = [flag for flag in FLAGS if flag.name == "watch-config-file"]
    return not flag.note


KUBERNETES = Capability("Kubernetes", _pools_are_found)
PROFILE_PAGES = Capability("operators' tools: profiles", _has_profile_pages)
HOT_RELOAD = Capability("operators' tools: the watched configuration file", _follows_its_configuration)
