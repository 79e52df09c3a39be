"""Every error this project raises on purpose.

    EppError
    ├── ConfigError      the operator's: a document, a flag or a file; carries all findings at once
    ├── UsageError       the operator's: a command line
    ├── PageError        the operator's: a debug page was asked what it cannot answer
    ├── RequestError     one request's: carries what the client is told
    ├── SchedulingError  no endpoint could be picked for this request: 429
    └── ProtocolError    the data plane's: a message that ext_proc forbids; the stream is aborted

Anything else that is raised is a defect of ours: the request gets 500, the log a traceback, a counter moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus


class EppError(Exception):
    """Root of all errors raised on purpose."""


class Severity(StrEnum):
    """How much a finding matters: only ``ERROR`` prevents a start (``WARNING`` too under ``--strict-config``)."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Edit(StrEnum):
    """How ``epp check --fix`` repairs what a finding is about; the document means the same afterwards."""

    REPLACE = "replace"
    """The key or value at the finding's place becomes the new text."""
    MOVE = "move"
    """The parameter at the finding's place goes to the mapping and key of the new text, ``profiles.decode``."""
    LIST_PARSER = "list-parser"
    """The reference at the finding's place becomes the one entry of ``requestHandler.parsers``."""
    DROP_ITEM = "drop-item"
    """The entry of a list at the finding's place goes away."""
    ADD_LINE = "add-line"
    """The new text is a line for the top of the document."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing, in a configuration document.

    ``line`` and ``column`` count from 1; 0 means that the place is unknown.
    """

    code: str
    """Stable identifier, ``CFG031`` or ``WRN009``; scripts may rely on it."""
    path: str
    """YAML path such as ``schedulingProfiles[0].plugins[2].pluginRef``; empty for the whole document."""
    message: str
    """What is wrong and why."""
    fix: str = ""
    """What to do about it, with the nearest valid name where there is one."""
    value: object = None
    """The offending value; never a secret."""
    line: int = 0
    column: int = 0
    severity: Severity = Severity.ERROR
    file: str = ""
    edit: Edit | None = None
    """How a program may repair it; None = a person has to."""
    new_text: str = ""
    """What the edit writes."""


class ConfigError(EppError):
    """A configuration that cannot be used.

    Args:
        findings: all that is wrong, in document order; never empty.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f"{f.code}: {f.path}: {f.message}" for f in self.findings))


class UsageError(EppError):
    """A command line that cannot be used; the process exits with status 2.

    Args:
        problems: one sentence for each problem, all reported together.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class PageError(EppError):
    """A debug page was asked what it cannot answer; the message, which says why, is sent with 400."""


class SchedulingError(EppError):
    """No endpoint could be picked; raised by profiles and profile handlers, answered with 429.

    Args:
        message: goes to the client behind ``failed to find target endpoint: ``.
        reason: dropped reason for the client, if one applies.
    """

    def __init__(self, message: str, reason: DropReason | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class ProtocolError(EppError):
    """The data plane sent what ext_proc forbids at this place; nothing was changed by the message."""


class ErrorCode(StrEnum):
    """Classes of request errors and the words they have on the wire. Source: llm-d-router: pkg/common/error/error.go."""

    BAD_REQUEST = "BadRequest"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    NOT_FOUND = "NotFound"
    REQUEST_TIMEOUT = "RequestTimeout"
    PRECONDITION_FAILED = "PreconditionFailed"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    """A coding of the body that is not read; a gRPC client gets UNIMPLEMENTED, as its specification says of compression."""
    RESOURCE_EXHAUSTED = "ResourceExhausted"
    INTERNAL = "Internal"
    SERVICE_UNAVAILABLE = "ServiceUnavailable"
    MODEL_SERVER_ERROR = "ModelServerError"
    """Only counted, never sent: the model server's own answer reaches the client unchanged."""

    @property
    def http_status(self) -> int:
        """The HTTP status that the client gets."""
        return _HTTP_STATUS[self]

    @property
    def grpc_status(self) -> int:
        """The gRPC status that a gRPC client gets (decision D14)."""
        return _GRPC_STATUS[self]


_HTTP_STATUS = {
    ErrorCode.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    ErrorCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
    ErrorCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.REQUEST_TIMEOUT: HTTPStatus.REQUEST_TIMEOUT,
    ErrorCode.PRECONDITION_FAILED: HTTPStatus.PRECONDITION_FAILED,
    ErrorCode.PAYLOAD_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    ErrorCode.SERVICE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.MODEL_SERVER_ERROR: HTTPStatus.BAD_GATEWAY,
}

_GRPC_STATUS = {
    ErrorCode.BAD_REQUEST: 3,
    ErrorCode.UNAUTHORIZED: 16,
    ErrorCode.FORBIDDEN: 7,
    ErrorCode.NOT_FOUND: 5,
    ErrorCode.REQUEST_TIMEOUT: 4,
    ErrorCode.PRECONDITION_FAILED: 9,
    ErrorCode.PAYLOAD_TOO_LARGE: 8,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 12,
    ErrorCode.RESOURCE_EXHAUSTED: 8,
    ErrorCode.INTERNAL: 13,
    ErrorCode.SERVICE_UNAVAILABLE: 14,
    ErrorCode.MODEL_SERVER_ERROR: 13,
}


class DropReason(StrEnum):
    """Values of the response header ``x-llm-d-request-dropped-reason``. Source: llm-d-router: pkg/common/error/error.go."""

    SATURATED = "rejected-saturated"
    NO_ENDPOINTS = "rejected-no-endpoints"
    TTL_EXPIRED = "rejected-ttl-expired"
    CONTEXT_CANCELLED = "rejected-context-cancelled"
    SHUTTING_DOWN = "rejected-shutting-down"
    EVICTED = "evicted"


@dataclass(slots=True)
class RequestError(EppError):
    """This request is refused, and this is what its client is told.

    Plugins raise it from any request hook to answer with a status of their choice.
    """

    code: ErrorCode
    message: str
    """Sent to the client; no internals."""
    reason: DropReason | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())
    """Added to the response."""

    def __str__(self) -> str:
        """The message as upstream writes it: ``inference error: <Code> - <message>``."""
        return f"inference error: {self.code} - {self.message}"
