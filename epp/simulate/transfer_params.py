"""``kv_transfer_params`` of requests and answers, as vLLM's NIXL connector and the side-car use them.

Source: vllm-project/vllm: vllm/distributed/kv_transfer/kv_connector/v1/nixl_connector.py; llm-d-router: pkg/sidecar/proxy/
connector_nixlv2.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epp.simulate.exchange import Json, bad_request

MEMBER = "kv_transfer_params"
PREFILL_ONLY: Json = {
    "do_remote_decode": True, "do_remote_prefill": False,
    "remote_engine_id": None, "remote_block_ids": None, "remote_host": None, "remote_port": None,
}  # fmt: skip
"""What a decode server sends to let another compute a prompt."""


@dataclass(frozen=True, slots=True)
class RemotePrefill:
    """Where the blocks of a prompt wait."""

    engine_id: str
    request_id: str
    block_ids: tuple[int, ...]
    host: str
    port: int

    def params(self) -> Json:
        """The answer of the server that computed the prompt, and part of the request to the one that goes on."""
        return {
            "do_remote_prefill": True, "do_remote_decode": False, "remote_engine_id": self.engine_id,
            "remote_request_id": self.request_id, "remote_block_ids": list(self.block_ids), "remote_host": self.host,
            "remote_port": self.port, "tp_size": 1,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TransferParams:
    """What a request says about other servers."""

    decodes_elsewhere: bool = False
    """Another server will fetch the blocks."""
    prefilled: RemotePrefill | None = None
    """Another server has computed the prompt."""


def transfer_params(body: Json) -> TransferParams:
    """Read the parameters of a request.

    Raises:
        ApiError: 400, they are malformed or contradict each other.
    """
    params = body.get(MEMBER)
    if params is None:
        return TransferParams()
    if not isinstance(params, dict):
        raise bad_request(f"{MEMBER} must be an object", MEMBER)
    decodes_elsewhere, prefilled = (_flag(params, name) for name in ("do_remote_decode", "do_remote_prefill"))
    if decodes_elsewhere and prefilled:
        raise bad_request(f"do_remote_decode and do_remote_prefill of {MEMBER} exclude each other", MEMBER)
    if decodes_elsewhere and body.get("stream"):
        raise bad_request("a prompt that is computed for another server is answered without a stream", "stream")
    return TransferParams(decodes_elsewhere, _remote(params) if prefilled else None)


def _flag(params: Json, name: str) -> bool:
    value = params.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_request(f"{name} of {MEMBER} must be a boolean", MEMBER)
    return bool(value)


def _remote(params: Json) -> RemotePrefill:
    engine_id, request_id, host = (params.get(f"remote_{name}") for name in ("engine_id", "request_id", "host"))
    port: Any = params.get("remote_port")
    block_ids: Any = params.get("remote_block_ids")
    texts_are_given = all(isinstance(text, str) and text for text in (engine_id, request_id, host))
    if not texts_are_given or not isinstance(port, int) or not 0 < port < 65536:
        names = "remote_engine_id, remote_request_id, remote_host and remote_port"
        raise bad_request(f"do_remote_prefill of {MEMBER} needs {names}", MEMBER)
    if not isinstance(block_ids, list) or not all(isinstance(each, int) for each in block_ids):
        raise bad_request(f"remote_block_ids of {MEMBER} must be a list of whole numbers", MEMBER)
    return RemotePrefill(str(engine_id), str(request_id), tuple(block_ids), str(host), port)
