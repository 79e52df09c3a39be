"""Endpoints that serve requests and say nothing of their caches: the commonest mistake of a set-up, told once."""

from __future__ import annotations

from collections.abc import Mapping

from epp.framework import log

_logger = log.get(__name__)

PATIENCE_S = 300.0


class Silence:
    """Watches for it."""

    def __init__(self) -> None:
        self._first_s: dict[str, float] = {}
        self._told: set[str] = set()

    @property
    def silent(self) -> list[str]:
        """Pods that were told of and have said nothing since."""
        return sorted(self._told)

    def sent(self, pod: str, now_s: float) -> None:
        """A request was sent to a pod."""
        self._first_s.setdefault(pod, now_s)

    def left(self, pod: str) -> None:
        """A pod is gone."""
        self._first_s.pop(pod, None)
        self._told.discard(pod)

    def check(self, now_s: float, last_message_s: Mapping[str, float], connected: Mapping[str, bool]) -> None:
        """Tell of pods that have served for five minutes without a message.

        Args:
            last_message_s: when each pod said something.
            connected: whether its socket is connected, where it has one of its own.
        """
        for pod, first_s in list(self._first_s.items()):
            spoke_s = last_message_s.get(pod)
            if spoke_s is not None and spoke_s >= first_s:
                del self._first_s[pod]
                self._told.discard(pod)
            elif now_s - first_s >= PATIENCE_S and pod not in self._told:
                self._told.add(pod)
                state = {True: "connected", False: "not connected", None: "no connection of its own"}[connected.get(pod)]
                _logger.warning(
                    "no KV events of an endpoint that serves requests: it publishes none, on another port, or with topics "
                    "that kvEventsConfig.topicFilter leaves out",
                    pod=pod,
                    connection=state,
                )
