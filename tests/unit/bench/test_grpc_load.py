"""The load at the gRPC level: what is sent, how ghz is called, what is made of its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import json_format

from bench import grpc_load
from bench.grpc_load import Segment

REPORT = {
    "count": 1000,
    "rps": 500.0,
    "latencyDistribution": [{"percentage": 50, "latency": 2_000_000}, {"percentage": 99, "latency": 9_500_000}],
    "statusCodeDistribution": {"OK": 990, "Unavailable": 10},
}


def test_the_messages_are_a_request_that_ends() -> None:
    head, body = [json_format.ParseDict(message, pb.ProcessingRequest()) for message in grpc_load.messages()]
    headers = {header.key: header.raw_value for header in head.request_headers.headers.headers}
    assert headers[":path"] == b"/v1/chat/completions"
    assert int(headers["content-length"]) == len(body.request_body.body)
    assert json.loads(body.request_body.body)["model"] == "bench-model"
    assert body.request_body.end_of_stream
    assert not head.HasField("protocol_config"), "a half-close would take the answer away"


def test_the_command_names_files_that_are_there(tmp_path: Path) -> None:
    words = grpc_load.command("ghz", 5, tmp_path, 2.5, 8)
    assert words[-1] == "127.0.0.1:5"
    assert words[words.index("--duration") + 1] == "2.5s"
    for option in ("--proto", "--import-paths"):
        assert Path(words[words.index(option) + 1]).exists()


def test_what_is_read_of_a_report() -> None:
    assert grpc_load.read_report(REPORT, 0.1) == Segment(1000, 10, 500.0, 2.0, 9.5, 0.1)
    assert grpc_load.read_report(REPORT, 0.1).us_per_call == pytest.approx(100)


def test_a_report_without_calls_is_no_error() -> None:
    empty = {"count": 0, "rps": 0.0, "latencyDistribution": None, "statusCodeDistribution": None}
    assert grpc_load.read_report(empty, 0.0) == Segment(0, 0, 0.0, 0.0, 0.0, 0.0)


def test_the_table_has_a_ratio_to_the_first() -> None:
    fast, slow = Segment(100, 0, 10.0, 1.0, 2.0, 0.001), Segment(100, 1, 10.0, 1.0, 2.0, 0.002)
    text = grpc_load.as_text({"a": [fast, fast], "b": [slow, slow]})
    assert "CPU, a / b: 0.50 [0.50, 0.50]" in text
    assert text.splitlines()[2].split()[-1] == "2", "failed calls of both segments"


def test_without_ghz_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(grpc_load, "find_ghz", lambda: None)
    monkeypatch.setattr("sys.argv", ["grpc_load", "--picker", "a=true"])
    assert grpc_load.main() == 0
    assert "make ghz" in capsys.readouterr().out
