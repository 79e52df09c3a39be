"""Documents in the spellings of other versions, and what is said of them."""

from __future__ import annotations

from epp.config.loaded import LoadedConfig
from epp.errors import Severity
from tests.config.corpus import findings, load

HEADER = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
LLM_D_V1 = "apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\n"
EXPERIMENTAL = "WRN017"
QUEUE = "{type: queue-scorer}"


def document(*plugins: str, more: str = "", header: str = HEADER) -> str:
    """A document with these plugins in flow style, and further sections."""
    return f"{header}plugins: [{', '.join(plugins)}]\n{more}"


def said(text: str) -> list[tuple[str, str]]:
    """(code, message and fix) of all errors and warnings."""
    found = [f for f in findings(text) if f.severity is not Severity.INFO and f.code != EXPERIMENTAL]
    return [(f.code, f"{f.message}; {f.fix}") for f in found]


def loaded(text: str) -> LoadedConfig:
    """A valid document, completed."""
    return load(text).config
