"""Load at the gRPC level: ``ghz`` calls the pickers themselves, no Envoy between. See bench/README.md.

Each call is one ``Process`` stream with headers and body of a small request. ``make ghz`` builds ghz from its Go module.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import cost, machine, pickers
from bench.load.pickers import Picker, parse_picker
from bench.load.process import ProcessFailed, ServerProcess
from bench.load.stats import Estimate, estimate, ratio
from bench.load.worker import Worker

CALL = "envoy.service.ext_proc.v3.ExternalProcessor/Process"
PROTOS = Path(__file__).parents[1] / "protos"
_PROTO = PROTOS / "envoy/service/ext_proc/v3/external_processor.proto"
_BODY = {"model": "bench-model", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
_HEADERS = {":method": "POST", ":path": "/v1/chat/completions", ":authority": "bench", "content-type": "application/json"}
_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Segment:
    """What one run of ghz against one picker showed."""

    calls: int
    failed: int
    per_second: float
    p50_ms: float
    p99_ms: float
    picker_cpu_s: float

    @property
    def us_per_call(self) -> float:
        """CPU of the picker, scraping included."""
        return self.picker_cpu_s / max(1, self.calls) * 1e6


def find_ghz() -> str | None:
    """The program, beside this interpreter or on the path."""
    return shutil.which("ghz", path=str(Path(sys.executable).parent)) or shutil.which("ghz")


def messages() -> list[dict[str, Any]]:
    """The messages of one stream, as ghz reads them: without a protocol_config, so that the end waits for the answer."""
    body = json.dumps(_BODY).encode()
    headers = {**_HEADERS, "content-length": str(len(body))}
    raw = [{"key": name, "rawValue": base64.b64encode(value.encode()).decode()} for name, value in headers.items()]
    return [
        {"requestHeaders": {"headers": {"headers": raw}}},
        {"requestBody": {"body": base64.b64encode(body).decode(), "endOfStream": True}},
    ]


def command(ghz: str, port: int, data: Path, seconds: float, streams: int) -> list[str]:
    """The command line of one run."""
    return [
        ghz,
        *("--insecure", "--proto", str(_PROTO), "--import-paths", str(PROTOS), "--call", CALL),
        *("--data-file", str(data), "--concurrency", str(streams), "--connections", "4"),
        *("--duration", f"{seconds:g}s", "--duration-stop", "wait", "--format", "json", f"127.0.0.1:{port}"),
    ]


def read_report(report: dict[str, Any], picker_cpu_s: float) -> Segment:
    """What ghz says in JSON; its times are nanoseconds.

    Args:
        report: as it was printed.
        picker_cpu_s: what the picker took meanwhile.
    """
    at = {entry["percentage"]: entry["latency"] / 1e6 for entry in report.get("latencyDistribution") or []}
    answered = (report.get("statusCodeDistribution") or {}).get("OK", 0)
    calls = report["count"]
    return Segment(calls, calls - answered, report["rps"], at.get(50, 0.0), at.get(99, 0.0), picker_cpu_s)


async def measure(ghz: str, chosen: Sequence[Picker], args: argparse.Namespace) -> dict[str, list[Segment]]:
    """Drive the pickers in alternating segments.

    Raises:
        ProcessFailed: a picker or ghz failed.
    """
    async with AsyncExitStack() as stack:
        back = ("--servers", str(args.endpoints), "--page", "small", "--response", "json", "--chunk-interval-ms", "0")
        backend = await stack.enter_async_context(Worker("bench.load.backend", *back))
        endpoints = [f"127.0.0.1:{port}" for port in backend.hello["ports"]]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epp-bench-")))
        running = await pickers.start(chosen, pickers.write_files(folder, endpoints, args.config), stack)
        data = folder / "messages.json"
        data.write_text(json.dumps(messages()))
        results: dict[str, list[Segment]] = {name: [] for name in running}
        for process in running.values():
            await _segment(command(ghz, process.port, data, _WARM_UP_S, args.streams), process)
        for number in range(args.segments):
            for name in running if number % 2 == 0 else reversed(running):
                process = running[name]
                words = command(ghz, process.port, data, args.seconds, args.streams)
                results[name].append(await _segment(words, process))
        return results


async def _segment(words: Sequence[str], picker: ServerProcess) -> Segment:
    before_s = cost.cpu_s(picker.pid)
    run = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await run.communicate()
    picker.check()
    if run.returncode or not out:
        raise ProcessFailed(f"ghz failed with status {run.returncode}: {err.decode(errors='replace')[-500:]}")
    return read_report(json.loads(out), cost.cpu_s(picker.pid) - before_s)


def as_text(results: dict[str, list[Segment]]) -> str:
    """One line for each picker, and one for each ratio to the first."""
    lines = [f"{'picker':12}{'calls/s':>24}{'p50 ms':>20}{'p99 ms':>20}{'CPU us/call':>24}{'failed':>8}"]
    for name, segments in results.items():
        figures = [
            _cell([segment.per_second for segment in segments], 0),
            _cell([segment.p50_ms for segment in segments], 2),
            _cell([segment.p99_ms for segment in segments], 2),
            _cell([segment.us_per_call for segment in segments], 0),
        ]
        widths = (24, 20, 20, 24)
        row = "".join(f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True))
        lines.append(f"{name:12}{row}{sum(segment.failed for segment in segments):>8}")
    first, *others = results
    for other in others:
        of = ratio([s.us_per_call for s in results[first]], [s.us_per_call for s in results[other]])
        if of is not None:
            lines.append(f"CPU, {first} / {other}: {_shown(of, 2)}")
    return "\n".join(lines)


def _cell(values: Sequence[float], digits: int) -> str:
    return _shown(estimate(values), digits)


def _shown(value: Estimate, digits: int) -> str:
    return f"{value.median:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def main() -> int:
    """Parse the command line, measure, print; 0 also where ghz is absent, with the reason."""
    parser = argparse.ArgumentParser(prog="python -m bench.grpc_load", description=__doc__)
    add = parser.add_argument
    add("--picker", type=parse_picker, action="append", required=True, metavar="NAME=COMMAND", help="as for bench.load")
    add("--segments", type=int, default=6, metavar="N", help="segments for each picker (default: %(default)s)")
    add("--seconds", type=float, default=3.0, metavar="S", help="length of a segment (default: %(default)s)")
    add("--streams", type=int, default=32, metavar="N", help="calls at the same time (default: %(default)s)")
    add("--endpoints", type=int, default=10, metavar="N", help="number of model servers (default: %(default)s)")
    add("--config", type=Path, metavar="FILE", help="EndpointPickerConfig; {endpoints_file} in it is replaced")
    args = parser.parse_args()
    ghz = find_ghz()
    if ghz is None:
        print("skipped: ghz is not there; `make ghz` builds it, where Go is installed")
        return 0
    print("\n".join(f"{name:12} {value}" for name, value in machine.describe().items()))
    try:
        print(as_text(asyncio.run(measure(ghz, args.picker, args))))
    except ProcessFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
