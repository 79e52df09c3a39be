"""What the tests of several stages share: addresses of the rig's endpoints, a subset, a rewrite rule, and refusals."""

from __future__ import annotations

from typing import Any

from epp.datalayer.objects import GROUP, InferenceModelRewrite, ObjectKey, RewriteRule, RewriteTarget
from tests.unit.decision.rig import Rig, request

A, B, C = "192.168.1.1:8000", "192.168.1.2:8000", "192.168.1.3:8000"
DESTINATION = "x-gateway-destination-endpoint"
SUBSET = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": [B]}}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
BUG = ZeroDivisionError("secret")
MODEL_HEADER = {"x-llm-d-model-name-rewrite": "h"}


def rule(name: str, target: str, *models: str) -> InferenceModelRewrite:
    return InferenceModelRewrite(
        ObjectKey(GROUP, "default", name), (RewriteRule((RewriteTarget(target),), models, generic=not models),)
    )


def refusal(rig: Rig, *args: Any, **kwargs: Any) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of the refusal of this request."""
    reply = rig.send(request(*args, **{"path": "/plain", **kwargs})).reply
    return reply.status, reply.body.decode(), dict(reply.headers)
