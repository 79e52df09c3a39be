"""The benchmark of a cluster runs from end to end, so that it is there when it is needed."""

from __future__ import annotations

import subprocess
import sys


def test_it_runs(have_cluster: None) -> None:
    command = [sys.executable, "-m", "bench.kube", "--pods=3", "--pods=5", "--seconds=0.3", "--rate=20", "--samples=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "Ready to first pick, p99 ms" in done.stdout
