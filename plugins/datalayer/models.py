"""models-data-source and model-server-protocol-models: which models each server serves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import orjson
from pydantic import AfterValidator, Field, model_validator

from epp.framework.handle import PluginContext
from epp.framework.interfaces import DataSource, Extraction, Extractor, Role
from epp.framework.keys import SERVED_MODELS, ServedModel
from epp.framework.params import NoParams, parse_duration
from epp.framework.registry import Alias, Gate, PluginType
from epp.framework.types import Endpoint, EndpointMetrics, Json
from plugins.datalayer.client_headers import ClientHeaders
from plugins.datalayer.http_fetch import HttpFetcher, endpoint_url
from plugins.datalayer.http_source import Interval, Scheme, TlsPaths, source_tls

OUTPUT = "openai-model-list"
DEFAULT_INTERVAL_S = 5.0
"""A list of models changes when an adapter is loaded: at the pace of metrics it would be asked for twenty times a second."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _check_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} must begin with /")
    return path


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if not value.isprintable():
            raise ValueError(f"the value of {name} has characters that no header can carry")
    return headers


class ModelsDataSourceParams(TlsPaths):
    """Parameters of models-data-source."""

    scheme: Scheme = Field(default="http", description="`http` or `https`.")
    path: Annotated[str, AfterValidator(_check_path)] = Field(default="/v1/models", description="Path of the model list.")
    insecure_skip_verify: bool = Field(default=True, description="Do not verify the server's certificate.")
    interval: Interval = Field(
        default="", description="Time between two reads, a duration; default: `--refresh-metrics-interval` if given, else 5s."
    )
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(
        default={}, description="Headers to send, such as an API key; then redirects are not followed."
    )
    bearer_token_file: str = Field(
        default="", description="File with a token that is sent as `Authorization: Bearer`; read again when it changes."
    )

    @model_validator(mode="after")
    def _check_authorization(self) -> ModelsDataSourceParams:
        if self.bearer_token_file and "authorization" in {name.lower() for name in self.headers}:
            raise ValueError("bearerTokenFile and an Authorization header in headers exclude each other")
        return self


class ModelsSource:
    """Fetches the list of models from the host and port that metrics are read from.

    vLLM and SGLang ask for their API key on this path, though not for metrics: give `headers` or `bearerTokenFile` then.
    An answer that is not 200 or not JSON is a failure, the previous list stays.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/source/models/datasource.go
    """

    output = OUTPUT

    def __init__(
        self, fetcher: HttpFetcher, interval_s: float | None, *, scheme: str = "http", path: str = "/v1/models"
    ) -> None:
        self._fetcher = fetcher
        self._scheme = scheme
        self._path = path
        self._interval_s = interval_s

    @property
    def interval_s(self) -> float | None:
        """The time between two fetches; None = ``--refresh-metrics-interval``."""
        return self._interval_s

    async def fetch(self, endpoint: Endpoint) -> bytes:
        """The list as JSON.

        Raises:
            OSError: it could not be read whole within a second, or is not JSON.
        """
        body = await self._fetcher.get(endpoint_url(self._scheme, endpoint.metrics_host, self._path))
        try:
            orjson.loads(body)
        except ValueError as error:
            raise OSError(f"the answer of {endpoint.metrics_host} is not JSON: {error}") from error
        return body

    async def close(self) -> None:
        """Close all connections."""
        await self._fetcher.close()


class ModelsExtractor:
    """Keeps the list of models that a server serves, adapters with their base model.

    For plugins that choose by model, and shown at `/debug/endpoints`; no built-in plugin reads it, as LoRA affinity goes by the
    metrics, which tell what is loaded now.

    Writes: the attribute `/v1/models`, a list of `id`, `parent`, `object`, `created`, `owned_by`.
    Missing data: without `data` the list is empty; what is not an object with an `id` is left out and named.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/extractor/models/extractor.go
    """

    input = OUTPUT

    def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
        """The metrics with the list; ``previous`` itself if it has not changed. The age of the metrics stays."""
        document = orjson.loads(payload)
        entries = document.get("data") if isinstance(document, dict) else None
        if entries is not None and not isinstance(entries, list):
            return Extraction(previous, ("data is not a list",))
        if not isinstance(document, dict):
            return Extraction(previous, ("the answer is not an object",))
        read = [_model(entry) for entry in entries or ()]
        models = tuple([model for model in read if model is not None])
        problems = (f"{len(read) - len(models)} entries of data have no id",) if len(models) < len(read) else ()
        if previous.attributes.get(SERVED_MODELS.name) == models:
            return Extraction(previous, problems)
        return Extraction(replace(previous, attributes={**previous.attributes, SERVED_MODELS.name: models}), problems)


def _model(entry: Json) -> ServedModel | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return None
    created = entry.get("created")
    return ServedModel(
        id=entry["id"],
        parent=_text(entry, "parent"),
        object=_text(entry, "object"),
        # Some servers send seconds with a fraction.
        created=int(created) if isinstance(created, (int, float)) and math.isfinite(created) else 0,
        owned_by=_text(entry, "owned_by"),
    )


def _text(entry: Mapping[str, Json], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _create_source(context: PluginContext, params: ModelsDataSourceParams) -> DataSource:
    tls = source_tls(context, params, scheme=params.scheme, verify=not params.insecure_skip_verify)
    # As with the files of TLS, a mere check does not look for the token.
    token_file = params.bearer_token_file if context.runtime is not None else ""
    headers = ClientHeaders(params.headers, token_file, clock=context.clock)
    fetcher = HttpFetcher(accept="application/json", tls=tls, headers=headers)
    return ModelsSource(fetcher, _interval_s(context, params.interval), scheme=params.scheme, path=params.path)


def _interval_s(context: PluginContext, written: str) -> float | None:
    if written:
        return parse_duration(written)
    return None if context.metrics_flags.refresh_interval_is_given else DEFAULT_INTERVAL_S


def _create_extractor(context: PluginContext, params: NoParams) -> Extractor:
    return ModelsExtractor()


_EXAMPLE = """
    featureGates: [dataLayer]
    plugins:
    - type: models-data-source
    - type: model-server-protocol-models
    - type: queue-scorer
    - type: max-score-picker
    schedulingProfiles:
    - name: default
      plugins:
      - pluginRef: queue-scorer
      - pluginRef: max-score-picker
    data:
      sources:
      - pluginRef: models-data-source
        extractors:
        - pluginRef: model-server-protocol-models
"""

SOURCE = PluginType(
    type="models-data-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Reads /v1/models of each server.",
    params=ModelsDataSourceParams,
    factory=_create_source,
    gate=Gate.DATA_LAYER,
    example=_EXAMPLE,
)

EXTRACTOR = PluginType(
    type="model-server-protocol-models",
    roles=frozenset({Role.EXTRACTOR}),
    summary="Keeps the list of served models.",
    factory=_create_extractor,
    aliases=(Alias("models-data-extractor"),),
    produces=(SERVED_MODELS,),
    gate=Gate.DATA_LAYER,
    example=_EXAMPLE,
)

PLUGINS = (SOURCE, EXTRACTOR)
