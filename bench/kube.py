"""What following a pool in a cluster costs, and how fast it is: a real API server, pools of several sizes. See bench/README.md.

python -m bench.kube --pods 100 --pods 1000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import psutil

from bench.calibration import calibrate
from tests.conformance.wire import Stream, request_body, request_headers, std_body
from tests.kube import crds
from tests.kube.api import Api, several
from tests.kube.cluster import Cluster, missing
from tests.kube.manifests import binding, pod, pool, role
from tests.kube.picker import Picker, write_kubeconfig

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: header-based-testing-filter
- type: random-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: header-based-testing-filter
  - pluginRef: random-picker
dataLayer:
  injectDefaults: false
"""
"""Nothing is scraped: that costs the same wherever endpoints come from. The filter lets a request ask for one pod."""
SELECTION = "test-epp-endpoint-selection"
AT_ONCE = 20
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a pool of one size."""

    pods: int
    start_s: float
    """From the start of the process to its readiness."""
    idle_cores: float
    busy_cores: float
    """While pods are updated."""
    updates_per_s: float
    """That were really made."""
    idle_mib: float
    busy_mib: float
    ready_to_pick_ms: list[float]
    """From asking the API server to make a pod ready to a request that is sent to it, ascending."""

    def quantile_ms(self, share: float) -> float:
        """Of ``ready_to_pick_ms``."""
        return self.ready_to_pick_ms[min(len(self.ready_to_pick_ms) - 1, int(share * len(self.ready_to_pick_ms)))]


def address(number: int) -> str:
    """Of a pod: on this machine, where nothing listens."""
    return f"127.{3 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


class Bench:
    """One pool of one size.

    Args:
        api: of the cluster, with a namespace of its own.
        folder: for files of the picker.
        pods: their number.
    """

    def __init__(self, api: Api, folder: Path, pods: int) -> None:
        self._api = api
        self._folder = folder
        self._pods = pods

    async def run(self, seconds: float, rate: float, samples: int) -> Figures:
        """Measure.

        Args:
            seconds: of each state.
            rate: pod updates a second.
            samples: pods that become ready.
        """
        await self._prepare()
        token = await self._api.token("epp")
        kubeconfig = write_kubeconfig(self._folder / f"{self._pods}.kubeconfig", self._api.cluster, token=token)
        flags = ["--pool-name=chat", f"--pool-namespace={self._api.namespace}", f"--kubeconfig={kubeconfig}"]
        began_s = time.perf_counter()
        async with Picker(self._folder, flags, config=CONFIG, name=f"picker-{self._pods}") as picker:
            await picker.is_ready(timeout_s=60)
            start_s = time.perf_counter() - began_s
            assert len(await picker.endpoints()) == self._pods
            process = psutil.Process(picker.process.pid)
            idle_cores, _ = await _cores(process, asyncio.sleep(seconds))
            idle_mib = process.memory_info().rss / MIB
            busy_cores, made = await _cores(process, self._update(seconds, rate))
            busy_mib = process.memory_info().rss / MIB
            delays = await self._delays(picker, samples)
        return Figures(self._pods, start_s, idle_cores, busy_cores, (made or 0) / seconds, idle_mib, busy_mib, sorted(delays))

    async def _prepare(self) -> None:
        api = self._api
        await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}})
        await api.create(role())
        await api.create(binding(api.namespace))
        await api.create(pool())
        await several(api.create(self._pod(number)) for number in range(self._pods))

    def _pod(self, number: int) -> dict[str, Any]:
        """About as large as a real one: some kilobytes of specification that nobody reads."""
        manifest = pod(f"p{number}", address(number), labels={"app": "m", "tick": "0"})
        filler = [{"name": f"VARIABLE_{index}", "value": "x" * 60} for index in range(50)]
        manifest["spec"]["containers"][0]["env"] = filler
        return manifest

    async def _update(self, seconds: float, rate: float) -> int:
        """Change pods at a rate, every other one in a label, the rest in what no endpoint has; how many changes were made."""
        gate = asyncio.Semaphore(AT_ONCE)
        made = 0

        async def one(number: int) -> None:
            nonlocal made
            kind = "labels" if number % 2 else "annotations"
            manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number % self._pods}"}}
            async with gate:
                await self._api.patch(manifest, {"metadata": {kind: {"tick": str(number)}}})
            made += 1

        ends_s = time.monotonic() + seconds
        tasks, number, next_s = set[asyncio.Task[None]](), 0, time.monotonic()
        while time.monotonic() < ends_s:
            task = asyncio.create_task(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
            next_s += 1 / rate
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        await asyncio.gather(*tasks)
        return made

    async def _delays(self, picker: Picker, samples: int) -> list[float]:
        """Milliseconds from Ready to the first pick, of pods that become ready one after the other."""
        delays = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
            for number in range(self._pods, self._pods + samples):
                manifest = pod(f"p{number}", address(number), ready="False")
                await self._api.create(manifest)
                began_s = time.perf_counter()
                ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
                patched = asyncio.create_task(self._api.patch(manifest, ready, "status"))
                while not await _is_picked(channel, address(number)):
                    pass
                delays.append((time.perf_counter() - began_s) * 1e3)
                await patched
        return delays


async def _is_picked(channel: grpc.aio.Channel, wanted: str) -> bool:
    """Whether a request that asks for a pod gets it."""
    stream = Stream(channel)
    await stream.send(request_headers({SELECTION: wanted}), request_body(std_body("m", "Hello")))
    message = await stream.raw()
    stream.call.cancel()
    return message is not None and message.WhichOneof("response") == "request_headers"


async def _cores(process: psutil.Process, work: Awaitable[int | None]) -> tuple[float, int | None]:
    """Cores that a process used while work was done, and what that returned."""
    before, began_s = process.cpu_times(), time.perf_counter()
    result = await work
    after, took_s = process.cpu_times(), time.perf_counter() - began_s
    return (after.user - before.user + after.system - before.system) / took_s, result


async def measure(sizes: Sequence[int], seconds: float, rate: float, samples: int) -> list[Figures]:
    """Figures of pools of these sizes, one after the other in one cluster."""
    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(_Started(Path(folder))) as started:
        for number, size in enumerate(sizes):
            async with Api(started.cluster, f"bench-{number}") as api:
                for definition in crds.everything():
                    await api.install(definition)
                found.append(await Bench(api, Path(folder), size).run(seconds, rate, samples))
    return found


class _Started:
    """A cluster that ends with the run."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        self.cluster.start()

    def close(self) -> None:
        """End it."""
        self.cluster.stop()


def table(found: Sequence[Figures]) -> str:
    """The figures, one size a column."""
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("pods", lambda figures: str(figures.pods)),
        ("start to ready, s", lambda figures: f"{figures.start_s:.2f}"),
        ("idle, cores", lambda figures: f"{figures.idle_cores:.4f}"),
        ("idle, MiB", lambda figures: f"{figures.idle_mib:.0f}"),
        ("pod updates a second", lambda figures: f"{figures.updates_per_s:.0f}"),
        ("followed, cores", lambda figures: f"{figures.busy_cores:.3f}"),
        ("followed, MiB", lambda figures: f"{figures.busy_mib:.0f}"),
        ("Ready to first pick, p50 ms", lambda figures: f"{figures.quantile_ms(0.5):.0f}"),
        ("Ready to first pick, p99 ms", lambda figures: f"{figures.quantile_ms(0.99):.0f}"),
    ]
    return "\n".join(f"{name:<30}" + "".join(f"{show(figures):>12}" for figures in found) for name, show in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print.

    Returns:
        0, or 1 where there can be no cluster.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.kube", description=__doc__.partition("\n")[0])
    parser.add_argument("--pods", type=int, action="append", help="size of a pool; repeatable (default: 100 and 1000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each state (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="pod updates a second (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="pods that become ready (default: %(default)s)")
    options = parser.parse_args(argv)
    if problem := missing():
        print(problem, file=sys.stderr)
        return 1
    print(f"calibration {calibrate():.0f} ns")
    print(table(asyncio.run(measure(options.pods or [100, 1000], options.seconds, options.rate, options.samples))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
