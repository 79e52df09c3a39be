"""What is read from where, what happens to what cannot be read, and the command line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from epp.commands import doctor
from epp.demo.envoy import render
from epp.doctor.examine import Examination, Look, examine

READY = {"status": "ready", "reasons": []}
PICKER: Mapping[str, object] = {
    "/healthz": {"status": "ok"},
    "/readyz": READY,
    "/debug/config": {"effective": {}, "findings": []},
    "/debug/endpoints": {"endpoints": [{"id": "default/a", "address": "[::1]:9", "ageSeconds": 0.1, "scraping": {}}]},
    "/metrics": "llm_d_epp_config_last_reload_successful 1\n",
}
TOKEN = "s3cret"


@asynccontextmanager
async def serving(pages: Mapping[str, object], token: str = "") -> AsyncIterator[str]:
    """A server with these pages, behind a token if one is given; a text is served as it is."""

    async def answer(request: web.Request) -> web.Response:
        if token and request.headers.get("Authorization") != f"Bearer {token}":
            return web.Response(status=401)
        page = pages.get(request.path)
        if page is None:
            return web.Response(status=404)
        return web.Response(text=page) if isinstance(page, str) else web.json_response(page)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def codes(examination: Examination) -> list[str]:
    """Codes of all findings but of a machine that is busy, without those that say what was not looked at."""
    return [found.code for found in examination.findings if found.code not in ("DOC002", "PCK002")]


async def test_a_picker_and_its_only_server_are_looked_at() -> None:
    async with serving(PICKER) as url:
        examination = await examine(Look(picker_url=url))
    assert examination.seen == ["the picker", "1 model server"]
    assert codes(examination) == ["ENG002"], "nothing listens at [::1]:9 here, though the picker says that it reads it"
    assert examination.findings[-1].path == "default/a ([::1]:9)"


async def test_pages_behind_authentication_need_the_token() -> None:
    async with serving(PICKER, TOKEN) as url:
        refused = await examine(Look(picker_url=url))
        allowed = await examine(Look(picker_url=url, token=TOKEN))
    assert codes(refused) == ["DOC001"]
    assert "401; give a token with --token-file" in refused.findings[0].message
    assert codes(allowed) == ["ENG002"]


async def test_the_token_goes_to_the_picker_alone() -> None:
    seen: list[str | None] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", note)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    entry = {"id": "default/a", "address": f"127.0.0.1:{port}", "ageSeconds": 0.1, "scraping": {}}
    try:
        async with serving({**PICKER, "/debug/endpoints": {"endpoints": [entry]}}, TOKEN) as url:
            await examine(Look(picker_url=url, token=TOKEN, envoy_admin=f"http://127.0.0.1:{port}"))
    finally:
        await runner.cleanup()
    assert seen
    assert set(seen) == {None}


@pytest.mark.parametrize("page", ["<html>", "[]"], ids=["no JSON", "no object"])
async def test_one_page_that_cannot_be_used_hides_nothing_of_the_others(page: str) -> None:
    async with serving({**PICKER, "/debug/config": page, "/readyz": {"reasons": ["draining"]}}) as url:
        examination = await examine(Look(picker_url=url))
    assert codes(examination) == ["DOC001", "PCK001", "ENG002"]


async def test_an_admin_interface_that_is_none() -> None:
    async with serving({"/config_dump": {"of": "something else"}}) as url:
        examination = await examine(Look(envoy_admin=url))
    assert codes(examination) == ["DOC001"]
    assert "neither a config dump nor a bootstrap" in examination.findings[-3].message


async def test_a_running_envoy_is_asked_for_hosts_and_counters() -> None:
    pages = {
        "/config_dump": render("full-duplex", epp_port=9),
        "/clusters": {"cluster_statuses": [{"name": "epp", "host_statuses": []}]},
        "/stats": {"stats": [{"name": "http.inference.ext_proc.message_timeouts", "value": 3}]},
    }
    async with serving(pages) as url:
        examination = await examine(Look(envoy_admin=url))
    assert codes(examination) == ["ENV050", "ENV051", "CRT006"]


@pytest.fixture
def bootstrap(tmp_path: Path) -> dict[str, Any]:
    return render("full-duplex", epp_port=9002)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error)."""
    status = doctor.main(argv)
    output, errors = capsys.readouterr()
    return status, output, errors


def saved(folder: Path, document: object) -> str:
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def test_a_file_that_is_right(tmp_path: Path, bootstrap: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    status, output, errors = run(capsys, "--picker=", "--envoy-config", saved(tmp_path, bootstrap))
    assert status == 0
    assert output == "looked at Envoy: 0 errors, 0 warnings\n"
    assert errors.splitlines() == [
        "info DOC002: the picker was not looked at; give --picker",
        "info DOC002: the cluster was not looked at; give --pool-name",
        "info DOC002: the picker's gRPC port was not looked at; give --grpc",
    ]


def test_warnings_are_errors_only_where_that_is_wanted(
    tmp_path: Path, bootstrap: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del bootstrap["static_resources"]["clusters"][0]["circuit_breakers"]
    flags = ["--picker=", "--envoy-config", saved(tmp_path, bootstrap)]
    assert run(capsys, *flags)[:2] == (0, "looked at Envoy: 0 errors, 1 warning\n")
    assert run(capsys, *flags, "--strict")[:2] == (1, "looked at Envoy: 1 error, 0 warnings\n")


def test_findings_as_json_have_the_members_that_epp_check_gives(
    tmp_path: Path, bootstrap: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap["static_resources"]["listeners"] = []
    path = saved(tmp_path, bootstrap)
    status, output, errors = run(capsys, "--picker=", "--envoy-config", path, "--output=json")
    assert (status, errors) == (1, "")
    first, *_ = json.loads(output)
    assert first == {
        "file": path,
        "line": 0,
        "column": 0,
        "path": "",
        "value": None,
        "message": "no listener has an active ext_proc filter, so no request reaches a picker",
        "fix": "take the filter from config/envoy/full-duplex.yaml",
        "severity": "error",
        "code": "ENV001",
    }


@pytest.mark.parametrize("text", ["{", "[]", None], ids=["no YAML", "no object", "no file"])
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "envoy.json"
    if text is not None:
        path.write_text(text)
    status, _, errors = run(capsys, "--picker=", "--envoy-config", str(path))
    assert status == 1
    assert f"{path}: error DOC001" in errors


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--picker=localhost:9090"], "is no URL; write http://HOST:PORT"),
        (["--grpc=9002"], "is not HOST:PORT"),
        (["--endpoint=10.0.0.1:70000"], "is not HOST:PORT"),
        (["--timeout=5"], "--timeout"),
        (["--timeout=0s"], "is not positive"),
        (["--envoy-admin=http://a", "--envoy-config=b"], "not allowed with"),
        (["--token-file=/does/not/exist"], "No such file"),
        (["--ca-file=/does/not/exist"], "--ca-file /does/not/exist cannot be used: No such file"),
        (["--kubeconfig=x"], "--kubeconfig has no effect without --pool-name"),
        (["--service-account=x/y"], "--service-account has no effect without --pool-name"),
        (["--pool-name=x", "--service-account=y"], "is not NAMESPACE/NAME"),
        (["unexpected"], "unrecognized arguments"),
    ],
)
def test_a_command_line_that_cannot_be_used(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, errors = run(capsys, *argv)
    assert status == 2
    assert message in errors


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return {"DOC001", "DOC002"}
