"""A container without an engine: a mount namespace with a read-only root, entered as the image's user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

USER = 65532
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/dev", "/proc")
TREE = "/opt/epp"

# $1 root, $2 folder that becomes /tmp, $3 tree, $4 user; FOLDERS: what is visible besides, at its own place
_ENTER = """
set -eu
root=$1 scratch=$2 tree=$3 user=$4
shift 4
show() {  # SOURCE PLACE
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  mount -o remount,bind,ro "$root$2"
}
mount -t tmpfs none "$root"
mkdir "$root/tmp"
mount --bind "$scratch" "$root/tmp"
for folder in $FOLDERS; do
  if [ -L "$folder" ]; then ln -s "$(readlink "$folder")" "$root$folder"
  elif [ -d "$folder" ]; then show "$folder" "$folder"
  fi
done
show "$tree" /opt/epp
mount -o remount,ro "$root"
exec chroot --userspec="$user:$user" "$root" "$@"
"""


def why_impossible() -> str:
    """Why this machine cannot do it, in a sentence; "" if it can."""
    missing = [program for program in ("unshare", "mount", "chroot") if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root, to become another user"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"mount namespaces are not permitted: {probe.stderr.strip()}" if probe.returncode else ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Runs commands with the tree at ``TREE``, where only /tmp can be written.

    Args:
        root: empty folder for the new root.
        scratch: becomes /tmp.
        tree: the virtual environment.
        outside: folders that the tree links to.
        environ: besides PATH.
    """

    root: Path
    scratch: Path
    tree: Path
    outside: Sequence[Path] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command; standard output and error are one pipe."""
        folders = [*SYSTEM, sys.base_prefix, *map(str, self.outside)]
        visible = [folder for folder in dict.fromkeys(folders) if folder in SYSTEM or not folder.startswith("/usr/")]
        enter = ["sh", "-c", _ENTER, "enter", str(self.root), str(self.scratch), str(self.tree), str(USER)]
        return subprocess.Popen(
            ["unshare", "--mount", *enter, *words],
            env={"PATH": f"{TREE}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "FOLDERS": " ".join(visible), **self.environ},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.start(words) as process:
            output, _ = process.communicate(timeout=60)
            return subprocess.CompletedProcess(words, process.returncode, output)
