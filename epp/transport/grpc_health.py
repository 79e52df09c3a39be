"""grpc.health.v1 from a table: Check, List and Watch.

Source: grpc/grpc: src/proto/grpc/health/v1/health.proto
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2 as pb

from epp.seam import HealthStatus, HealthTable

SERVICE = "grpc.health.v1.Health"


class HealthService:
    """Answers from the latest table; unlisted services get its default."""

    def __init__(self) -> None:
        self._table = HealthTable({}, HealthStatus.NOT_SERVING)
        self._changed = asyncio.Event()
        self._stopped = False

    def set(self, table: HealthTable) -> None:
        """Replace the table and tell those who watch."""
        self._table = table
        self._tell()

    def stop(self) -> None:
        """End all watches; they would hold the server open."""
        self._stopped = True
        self._tell()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """The service's methods for grpc."""
        return {
            "Check": grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=pb.HealthCheckRequest.FromString,
                response_serializer=pb.HealthCheckResponse.SerializeToString,
            ),
            "List": grpc.unary_unary_rpc_method_handler(
                self._list,
                request_deserializer=pb.HealthListRequest.FromString,
                response_serializer=pb.HealthListResponse.SerializeToString,
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=pb.HealthCheckRequest.FromString,
                response_serializer=pb.HealthCheckResponse.SerializeToString,
            ),
        }

    async def _check(self, request: Any, _context: aio.ServicerContext[Any, Any]) -> Any:
        return _response(self._status(request.service))

    async def _list(self, _request: Any, _context: aio.ServicerContext[Any, Any]) -> Any:
        return pb.HealthListResponse(statuses={name: _response(status) for name, status in self._table.statuses.items()})

    async def _watch(self, request: Any, context: aio.ServicerContext[Any, Any]) -> None:
        """Send each status that differs from the one before; a slow reader misses what was in between."""
        sent: HealthStatus | None = None
        while not self._stopped:
            changed = self._changed
            status = self._status(request.service)
            if status is not sent:
                sent = status
                await context.write(_response(status))
            await changed.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "server is stopping")

    def _status(self, service: str) -> HealthStatus:
        return self._table.statuses.get(service, self._table.default)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _response(status: HealthStatus) -> Any:
    return pb.HealthCheckResponse(status=int(status))
