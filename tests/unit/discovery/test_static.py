"""``--endpoint HOST:PORT[,label=value...]``."""

from __future__ import annotations

import asyncio

import pytest

from epp.datalayer.store import EndpointStore
from epp.discovery.static import StaticDiscovery, StaticEndpoint, parse_endpoints
from epp.errors import ConfigError, UsageError
from epp.framework.interfaces import EndpointDiscovery

_PROTOCOL: type[EndpointDiscovery] = StaticDiscovery


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("10.0.0.1:8000", StaticEndpoint("10.0.0.1", 8000), "10-0-0-1-8000"),
        ("localhost:1", StaticEndpoint("localhost", 1), "localhost-1"),
        ("Vllm-0.vllm.svc:8000", StaticEndpoint("Vllm-0.vllm.svc", 8000), "vllm-0-vllm-svc-8000"),
        ("[2001:DB8::1]:8000", StaticEndpoint("2001:db8::1", 8000), "2001-db8-1-8000"),
        ("a:1,role=decode,x=", StaticEndpoint("a", 1, {"role": "decode", "x": ""}), "a-1"),
        ("a:1, k=v=w", StaticEndpoint("a", 1, {"k": "v=w"}), "a-1"),
    ],
)
def test_what_a_flag_means(text: str, expected: StaticEndpoint, name: str) -> None:
    assert parse_endpoints([text]) == [expected]
    assert expected.name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write HOST:PORT, with an IPv6 address in brackets"),
        ("host", "write HOST:PORT, with an IPv6 address in brackets"),
        (":8000", "write HOST:PORT, with an IPv6 address in brackets"),
        ("host:", "port '' is not an integer from 1 to 65535"),
        ("host:0", "port '0' is not an integer from 1 to 65535"),
        ("host:65536", "port '65536' is not an integer from 1 to 65535"),
        ("host:٣", "port '٣' is not an integer from 1 to 65535"),
        ("::1:8000", "an IPv6 address must be in brackets: [::1]:8000"),
        ("[::g]:8000", "Only hex digits permitted in 'g' in '::g'"),
        ("10.0.0.256:1", "Octet 256 (> 255) not permitted in '10.0.0.256'"),
        ("ho st:1", "'ho st' is neither an IP address nor a host name"),
        ("http://host:1", "an IPv6 address must be in brackets: [::1]:8000"),
        ("a:1,role", "'role' is not a label; write name=value"),
        ("a:1,=v", "'=v' is not a label; write name=value"),
        ("a:1,", "'' is not a label; write name=value"),
        ("a:1,k=v,k=w", "label 'k' is given twice"),
    ],
)
def test_wrong_flags(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_endpoints([text])
    assert caught.value.problems == (f"--endpoint {text}: {message}",)


def test_all_wrong_flags_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_endpoints(["a:1", "b", "a:1,x=y", "c:0"])
    assert len(caught.value.problems) == 3
    assert caught.value.problems[1] == "--endpoint a:1,x=y: a:1 is given twice"


async def resolve(host: str, port: int) -> str:
    if host == "nowhere":
        raise OSError(-2, "Name or service not known")
    return "10.9.9.9"


async def test_names_are_resolved_at_the_start() -> None:
    store = EndpointStore()
    discovery = StaticDiscovery(parse_endpoints(["vllm:8000,role=decode", "[::1]:8001", "10.0.0.1:8002"]), resolve)
    task = asyncio.create_task(discovery.run(store))
    async with asyncio.timeout(5):
        await discovery.ready.wait()
    discovery.reload()
    assert [(e.id, e.host_port, dict(e.labels)) for e in store] == [
        ("default/vllm-8000", "10.9.9.9:8000", {"role": "decode"}),
        ("default/1-8001", "[::1]:8001", {}),
        ("default/10-0-0-1-8002", "10.0.0.1:8002", {}),
    ]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_names_that_cannot_be_resolved_end_the_start() -> None:
    discovery = StaticDiscovery(parse_endpoints(["nowhere:1", "vllm:2", "nowhere:3"]), resolve)
    with pytest.raises(ConfigError) as caught:
        await discovery.run(EndpointStore())
    assert [f.value for f in caught.value.findings] == ["nowhere:1", "nowhere:3"]
    assert caught.value.findings[0].message == "host name 'nowhere' cannot be resolved: Name or service not known"
    assert not discovery.ready.is_set()


async def test_the_system_resolves_its_own_name() -> None:
    store = EndpointStore()
    discovery = StaticDiscovery(parse_endpoints(["localhost:8000"]))
    task = asyncio.create_task(discovery.run(store))
    async with asyncio.timeout(5):
        await discovery.ready.wait()
    assert store.snapshot().endpoints[0].address in ("127.0.0.1", "::1")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
