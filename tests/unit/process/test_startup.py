"""What the process makes of its flags before it builds anything."""

from __future__ import annotations

from epp.process.options import Options
from epp.process.startup import pool_settings


def test_the_limit_of_bodies_also_holds_for_decoded_ones() -> None:
    assert pool_settings(Options(max_request_body_bytes=5)).max_body_bytes == 5
