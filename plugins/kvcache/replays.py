"""Messages that were missed and are asked for again, of a few pods at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import zmq

from epp.framework import log
from epp.framework.types import Endpoint
from plugins.kvcache.link_set import LinkSet
from plugins.kvcache.links import Frames, Link, replay_request
from plugins.kvcache.receiver_counts import Tally
from plugins.kvcache.receiver_settings import socket_address

_logger = log.get(__name__)

MAX_REPLAYS = 8
"""At one time; a picker that starts would ask all pods at once."""


class Replays:
    """Who is asked, and who waits for it.

    Args:
        context: makes sockets.
        links: they are waited for among these.
        port: where pods answer.
        tally: counts failures.
        on_frames: takes what a pod answers: its name and a message's frames.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        links: LinkSet,
        port: int,
        tally: Tally,
        on_frames: Callable[[str, Frames], None],
    ) -> None:
        self._context = context
        self._links = links
        self._port = port
        self._tally = tally
        self._on_frames = on_frames
        self._running: dict[str, Link] = {}
        self._due: OrderedDict[str, int] = OrderedDict()

    def ask_later(self, pod: str, start: int) -> None:
        """Messages from this number on are wanted of a pod, instead of what was wanted before."""
        self.stop(pod)
        self._due[pod] = start

    def next_due(self) -> tuple[str, int] | None:
        """Who is to be asked now, and from which number on; None if nobody waits or all places are taken."""
        if not self._due or len(self._running) >= MAX_REPLAYS:
            return None
        return self._due.popitem(last=False)

    def start(self, pod: str, endpoint: Endpoint, start: int) -> bool:
        """Ask a pod; False if that failed."""
        try:
            raw = replay_request(self._context, socket_address(endpoint, self._port), start)
        except zmq.ZMQError as error:
            self._tally.errors[pod, "replay-connect"] += 1
            _logger.debug("messages cannot be replayed", pod=pod, error=str(error))
            return False
        link = Link(raw, pod, lambda frames: self._on_frames(pod, frames))
        self._running[pod] = link
        self._links.add(link)
        return True

    def stop(self, pod: str) -> None:
        """Nothing is wanted of a pod any more."""
        self._due.pop(pod, None)
        link = self._running.pop(pod, None)
        if link is not None:
            self._links.remove(link)
