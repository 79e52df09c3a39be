"""Who may read the metrics port, by an API server that is a table here."""

from __future__ import annotations

from typing import Any

import pytest

from epp.cluster.access import AccessReview
from epp.cluster.connection import ClusterConnection

USERS = {
    "wide": {"username": "u", "extra": {"scopes": ["metrics"]}},
    "narrow": {"username": "u", "extra": {"scopes": []}},
    "plain": {"username": "u"},
}


class Reviews(ClusterConnection):
    """Knows these users, and lets in who has the scope."""

    def __init__(self) -> None:
        super().__init__(environ={})
        self.asked: list[str] = []

    async def send(self, method: str, path: str, body: object, **more: Any) -> Any:
        assert isinstance(body, dict)
        self.asked.append(body["kind"])
        if body["kind"] == "TokenReview":
            user = USERS.get(body["spec"]["token"])
            return {"status": {"authenticated": user is not None, "user": user}}
        return {"status": {"allowed": "metrics" in (body["spec"]["extra"] or {}).get("scopes", ())}}


@pytest.mark.parametrize("order", [("wide", "narrow", "plain"), ("plain", "narrow", "wide")])
async def test_a_right_is_that_of_the_whole_user(order: tuple[str, ...]) -> None:
    review = AccessReview(Reviews(), lambda: 0.0)
    found = {token: (await review.allowed(token, "get", "/metrics"))[0] for token in order}
    assert found == {"wide": 200, "narrow": 403, "plain": 403}


async def test_answers_are_kept_for_each_path_and_verb() -> None:
    reviews = Reviews()
    review = AccessReview(reviews, lambda: 0.0)
    for verb, path in [("get", "/metrics"), ("get", "/metrics"), ("post", "/debug/explain"), ("get", "/debug/explain")]:
        assert await review.allowed("wide", verb, path) == (200, "")
    assert reviews.asked == ["TokenReview", *["SubjectAccessReview"] * 3]
    assert await review.allowed("", "get", "/metrics") == (401, "Unauthorized")
    assert await review.allowed("nobody", "get", "/metrics") == (401, "Unauthorized")
