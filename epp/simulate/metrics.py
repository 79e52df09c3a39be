"""The ``/metrics`` page of a simulated server, with vLLM's names."""

from __future__ import annotations

from epp.simulate.engine import Engine
from epp.simulate.options import ServerOptions

CONTENT_TYPE = "text/plain"


class MetricsRenderer:
    def __init__(self, options: ServerOptions, engine: Engine) -> None:
        self._engine = engine
        self._options = options

    def page(self) -> bytes:
        e = self._engine
        m = self._options.models[0]
        lines = []
        for name, value in (
            ("num_requests_running", e.running),
            ("num_requests_waiting", e.waiting),
            ("kv_cache_usage_perc", e.kv_usage_ratio),
        ):
            lines.append(f'# TYPE vllm:{name} gauge\nvllm:{name}{{engine="0",model_name="{m}"}} {float(value)}\n')
        o = e.options
        lines.append(
            f'# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{block_size="{o.block_size}",engine="0",num_gpu_blocks="{o.kv_blocks}"}} 1.0\n'
        )
        return "".join(lines).encode()
