"""Fixtures: pickers that end with the test, and must have settled by then."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio

from epp.seam import Transport
from tests.conformance.picker import TRANSPORTS, Picker, Server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this package share an event loop: grpc's poller outlives a test, and would call into a closed one."""
    for item in items:
        if item.path.parent == HERE and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="package"), append=False)


class StartPicker(Protocol):
    """Starts a picker with these endpoints; options as of ``Picker``."""

    async def __call__(self, *servers: Server, **options: Any) -> Picker: ...


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.__name__)
def transport_type(request: pytest.FixtureRequest) -> type[Transport]:
    """The transport under test."""
    chosen: type[Transport] = request.param
    return chosen


@pytest_asyncio.fixture(loop_scope="package")
async def start(transport_type: type[Transport], caplog: pytest.LogCaptureFixture) -> AsyncIterator[StartPicker]:
    """Factory: ``await start(A(3, .2), B(0, .1))``. Each picker is proven to have settled when the test is over.

    Errors in the log fail the test, except those of plugins: tests bring broken ones.
    """
    async with AsyncExitStack() as stack:

        async def start_picker(*servers: Server, **options: Any) -> Picker:
            picker = Picker(transport_type(), servers, **options)
            stack.push_async_callback(picker.stop)
            await picker.start()
            pickers.append(picker)
            return picker

        pickers: list[Picker] = []
        yield start_picker
        for picker in pickers:
            await picker.settle()
        errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
        assert not [record for record in errors if record.name != "epp.plugins"]
