"""Who may read the metrics port: the API server says, by TokenReview and SubjectAccessReview; its answers are kept a while.

Source: kubernetes-sigs/controller-runtime: pkg/metrics/filters/filters.go.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import orjson

from epp.cluster.connection import ClusterConnection, ClusterError

T = TypeVar("T")

TOKEN_S = 60.0
"""How long a token counts as valid, or as invalid, without being asked about."""
ALLOWED_S, DENIED_S = 300.0, 30.0
_KEPT = 1000
"""Answers that are kept of each kind; tokens come from anywhere."""
_TIMEOUT_S = 10.0


class _Answers(Generic[T]):
    """Answers by question, each until its time is over; the oldest goes first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[Any, tuple[float, T]] = OrderedDict()

    def get(self, question: object) -> T | None:
        until_s, answer = self._kept.get(question, (0.0, None))
        return answer if self._clock() < until_s else None

    def keep(self, question: object, answer: T, for_s: float) -> T:
        self._kept[question] = (self._clock() + for_s, answer)
        self._kept.move_to_end(question)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return answer


class AccessReview:
    """Asks the API server about tokens and rights.

    Args:
        connection: the API server; we must be allowed to create tokenreviews and subjectaccessreviews.
        clock: replaced in tests.
    """

    def __init__(self, connection: ClusterConnection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._users: _Answers[Mapping[str, Any]] = _Answers(clock)
        self._rights: _Answers[bool] = _Answers(clock)

    async def allowed(self, token: str, verb: str, path: str) -> tuple[int, str]:
        """Whether the bearer of a token may do something to a path that is no resource.

        Returns:
            An HTTP status, 200, 401, 403 or 500, and the reason of a refusal.
        """
        if not token:
            return 401, "Unauthorized"
        try:
            user = await self._user(token)
            if not user:
                return 401, "Unauthorized"
            if await self._may(user, verb, path):
                return 200, ""
        except ClusterError as error:
            return 500, f"Authentication failed: {error}"
        return 403, f"Authorization denied for user {user.get('username')}"

    async def _user(self, token: str) -> Mapping[str, Any]:
        """Whose token it is; empty = nobody's."""
        question = hashlib.sha256(token.encode()).digest()  # tokens are not kept
        known = self._users.get(question)
        if known is not None:
            return known
        status = await self._ask("authentication.k8s.io", "TokenReview", {"token": token})
        user = status.get("user") or {} if status.get("authenticated") else {}
        return self._users.keep(question, user, TOKEN_S)

    async def _may(self, user: Mapping[str, Any], verb: str, path: str) -> bool:
        question = orjson.dumps((user, verb, path), option=orjson.OPT_SORT_KEYS)
        known = self._rights.get(question)
        if known is not None:
            return known
        spec = {
            "user": user.get("username"),
            "uid": user.get("uid"),
            "groups": user.get("groups"),
            "extra": user.get("extra"),
            "nonResourceAttributes": {"path": path, "verb": verb},
        }
        status = await self._ask("authorization.k8s.io", "SubjectAccessReview", spec)
        may = bool(status.get("allowed"))
        return self._rights.keep(question, may, ALLOWED_S if may else DENIED_S)

    async def _ask(self, group: str, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        answer = await self._connection.send("POST", f"/apis/{group}/v1/{kind.lower()}s", body, timeout_s=_TIMEOUT_S)
        status: Mapping[str, Any] = answer.get("status") or {}
        return status
