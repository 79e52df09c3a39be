"""The installed wheel: the service as in its image, and all commands as a user has them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from grpc import aio

from epp.version import VERSION
from tests.conformance.wire import Stream, request_body, request_headers, see_response, std_body
from tests.packaging.conftest import Tree
from tests.packaging.sandbox import Sandbox

SERVE = [
    "python", "-m", "epp", "--endpoint", "127.0.0.1:1", "--bind-address", "127.0.0.1",
    "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0",
    "--ready-file", "/tmp/ready.json", "--drain-timeout", "0s",
]  # fmt: skip

IMPORT_ALL = """
import importlib, pkgutil, sys
needs_more = (
    *("epp.demo", "epp.__main__", "epp.transport.native", "epp.telemetry.decision_spans", "epp.telemetry.otel"),
    *(f"plugins.kvcache.{name}" for name in ("link_set", "links", "native_index", "reception", "replays", "subscriber")),
    *("epp.simulate.kv_", "plugins.tokenization.template"),
)
for package in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.startswith(needs_more):
            importlib.import_module(module.name)
"""


def read_ready_file(path: Path, process: subprocess.Popen[str]) -> dict[str, int]:
    """Wait until the service writes it; the service's output is the message if it does not."""
    until = time.monotonic() + 30
    while not path.exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.02)
    content: dict[str, int] = json.loads(path.read_text())
    return content


def test_the_image_serves_as_another_user_and_writes_nothing_but_the_ready_file(sandbox: Sandbox) -> None:
    with sandbox.start(SERVE) as process:
        ready = read_ready_file(sandbox.scratch / "ready.json", process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert set(ready) == {"pid", "grpc_port", "grpc_health_port", "metrics_port"}
    assert "Uid:\t65532\t65532\t65532\t65532" in status
    records = [json.loads(line) for line in output.splitlines()]
    assert [record["msg"] for record in records if record["level"] == "error"] == []
    assert records[-1]["msg"] == "stopped"
    assert [path for path in sandbox.scratch.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("transport", ["auto", "native"])
async def test_the_image_serves_through_the_extension(transport: str, native_sandbox: Sandbox) -> None:
    with native_sandbox.start([*SERVE, "--secure-serving=false", f"--transport={transport}"]) as process:
        ready = await asyncio.to_thread(read_ready_file, native_sandbox.scratch / "ready.json", process)
        async with aio.insecure_channel(f"127.0.0.1:{ready['grpc_port']}") as channel:
            stream = await Stream(channel).send(request_headers(), request_body(std_body("m", "p")))
            assert (await stream.routed()).target == "127.0.0.1:1"
            await see_response(stream)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 0, output
    records = [json.loads(line) for line in output.splitlines()]
    assert [record["name"] for record in records if record["msg"] == "transport"] == ["native"]
    assert [path for path in native_sandbox.scratch.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("folder", ["/", "/opt/epp", "/opt/epp/lib", "/etc"])
def test_the_root_of_the_image_is_read_only_here(folder: str, sandbox: Sandbox) -> None:
    done = sandbox.run(["touch", f"{folder}/new"])
    assert (done.returncode, "Read-only file system" in done.stdout) == (1, True), done.stdout


def test_the_image_says_what_it_was_built_from(sandbox: Sandbox) -> None:
    told = replace(sandbox, environ={"EPP_BUILD_COMMIT": "0123abc"}).run(["python", "-m", "epp", "--version"])
    assert told.stdout.startswith(f"epp {VERSION} (commit 0123abc")


def test_the_runtime_lock_is_enough_for_all_but_extras_and_the_extension(image_tree: Tree, tmp_path: Path) -> None:
    done = image_tree.run([image_tree.python, "-c", IMPORT_ALL, "epp", "plugins"], tmp_path)
    assert done.returncode == 0, done.stderr


def test_pruning_leaves_only_messages_that_are_imported(image_tree: Tree) -> None:
    left = [path for path in image_tree.site.glob("envoy/**/*.py") if path.name != "__init__.py"]
    assert any(path.name == "external_processor_pb2.py" for path in left)
    assert len(left) < 50


def test_the_image_says_what_the_demo_needs(image_tree: Tree, tmp_path: Path) -> None:
    done = image_tree.run(["epp", "demo", "--requests", "1"], tmp_path)
    assert (done.returncode, "pip install 'endpoint-picker[demo]'" in done.stderr) == (1, True)


def test_the_script_tells_its_version(user_tree: Tree, tmp_path: Path) -> None:
    done = user_tree.run(["epp", "--version"], tmp_path)
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["epp", VERSION])


def test_an_installed_preset_is_valid(user_tree: Tree, tmp_path: Path) -> None:
    done = user_tree.run(["epp", "check", user_tree.site / "epp" / "data" / "presets" / "prefix-load.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.envoy
def test_the_demo_runs_from_an_empty_folder_and_leaves_it_empty(
    user_tree: Tree, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not (user_tree.path / "bin" / "envoy").exists() and "envoy" not in request.config.getoption("--require").split(","):
        pytest.skip("needs Envoy")
    done = user_tree.run(["epp", "demo", "--requests", "20"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 of 20 requests succeeded" in done.stdout
    assert list(tmp_path.iterdir()) == []
