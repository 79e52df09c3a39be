"""The naive picker that others are measured against: a random endpoint for every request, all bodies sent back as they came."""

import argparse
import random
from collections.abc import AsyncIterator

import grpc.aio
import uvloop
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import (
    ExternalProcessorServicer,
    add_ExternalProcessorServicer_to_server,
)

FULL_DUPLEX = 4  # BodySendMode.FULL_DUPLEX_STREAMED


class NaivePicker(ExternalProcessorServicer):  # type: ignore[misc]
    """Answers each message at once; works in every body mode."""

    def __init__(self, endpoints: list[bytes]) -> None:
        self._endpoints = endpoints

    async def Process(  # noqa: N802
        self, requests: AsyncIterator[pb.ProcessingRequest], _context: object
    ) -> AsyncIterator[pb.ProcessingResponse]:
        """Serve one HTTP request."""
        duplex = {"request_body": True, "response_body": True}
        async for message in requests:
            if message.HasField("protocol_config"):
                modes = message.protocol_config
                duplex = {side: getattr(modes, f"{side}_mode") == FULL_DUPLEX for side in duplex}
            kind = message.WhichOneof("request")
            answer = pb.ProcessingResponse()
            getattr(answer, kind).SetInParent()
            if kind == "request_headers":
                common = answer.request_headers.response
                common.clear_route_cache = True
                header = common.header_mutation.set_headers.add().header
                header.key, header.raw_value = "x-gateway-destination-endpoint", random.choice(self._endpoints)
            elif duplex.get(kind):
                body = getattr(message, kind)
                streamed = getattr(answer, kind).response.body_mutation.streamed_response
                streamed.body, streamed.end_of_stream = body.body, body.end_of_stream
            yield answer


async def serve(port: int, endpoints: list[str]) -> None:
    """Serve without TLS on loopback until the process is ended."""
    server = grpc.aio.server()
    add_ExternalProcessorServicer_to_server(NaivePicker([name.encode() for name in endpoints]), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.naive_picker", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port of the ext_proc server on 127.0.0.1")
    parser.add_argument("--endpoints", required=True, help="comma-separated host:port")
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.endpoints.split(",")))


if __name__ == "__main__":
    main()
