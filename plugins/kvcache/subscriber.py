"""The thread that receives KV events and applies them to the index, so that no flood of them reaches the event loop.

A defect costs what is known of caches, as nobody can tell what of it was applied. Then sockets are opened anew, and engines are
asked for their blocks, where they can be.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from epp.framework import log
from epp.framework.types import Endpoint
from plugins.kvcache.attribution import Attribution
from plugins.kvcache.event_index import EventIndex
from plugins.kvcache.receiver_counts import ReceiverCounts, Tally
from plugins.kvcache.receiver_settings import ReceiverSettings
from plugins.kvcache.reception import Members, Reception

_logger = log.get(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before it is tried again after a defect: twice as long each time, and the first again once all went well for the longest."""


class EventReceiver:
    """Receives on sockets of its own thread.

    Args:
        index: events are applied to.
        settings: which sockets.
        clock: seconds.
        first_pause_s: between a defect and the first attempt to receive again.
    """

    def __init__(
        self,
        index: EventIndex,
        settings: ReceiverSettings,
        clock: Callable[[], float] = time.monotonic,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock
        self._first_pause_s = first_pause_s
        self._reception: Reception | None = None
        self._thread: threading.Thread | None = None
        self._changes: deque[Members] = deque()
        self._attribution = Attribution()
        """The pool as the thread knows it."""
        self._stopping = threading.Event()
        self._has_warned = False
        self.problem = ""
        """Why nothing is received, by a defect; empty = it is, or is not wanted to be."""
        self.last_problem = ""
        """The same of the last defect, also after it is received again; empty = there was none."""
        self.restarts = 0
        """How often it was received again after a defect."""
        self.applied = threading.Event()
        """Set after messages were applied or members changed, for tests; they clear it."""

    def start(self) -> None:
        """Bind what is to be bound, and begin to receive.

        Raises:
            OSError: the address cannot be bound.
        """
        reception = self._reception = Reception(self._index, self._settings, self._clock)
        self._thread = threading.Thread(target=self._run, args=(reception,), name="kv-events", daemon=True)
        self._thread.start()

    def follow(self, endpoints: Sequence[Endpoint], gone: Sequence[Endpoint] = ()) -> None:
        """These are the endpoints of the pool now.

        Args:
            gone: servers that left; another one may be at the same address.
        """
        wanted = [endpoint for endpoint in endpoints if self._settings.wants(endpoint)]
        if endpoints and not wanted and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "podDiscoveryConfig matches no endpoint of the pool, so that nothing is learned of their caches",
                endpoints=len(endpoints),
                fix="remove podLabelSelector and podNamespace, or let them match: the pool's endpoints are followed anyway",
            )
        if self._thread is None or self.problem:  # nothing is known of anybody, so that only who is there now counts
            self._changes.clear()
        self._changes.append(Members(Attribution(wanted), [endpoint.host_port for endpoint in gone]))
        self._wake_up()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopping.set()
        self._wake_up()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def central_port(self) -> int:
        """Where the central socket is bound; 0 = nowhere."""
        return self._reception.central_port if self._reception is not None else 0

    @property
    def last_message_s(self) -> Mapping[str, float]:
        """Pod → when it said something."""
        return self._reception.last_message_s if self._reception is not None else {}

    def counts(self) -> ReceiverCounts:
        """What happened since the start."""
        counts = self._reception.counts() if self._reception is not None else Tally().counts((), {}, 0)
        return counts._replace(subscribers=0) if self.problem else counts

    def connected(self) -> dict[str, bool]:
        """Pod → whether its socket is connected."""
        return self._reception.connected() if self._reception is not None and not self.problem else {}

    def _wake_up(self) -> None:
        if self._reception is not None:
            self._reception.wake_up()

    # ── the thread ──

    def _run(self, reception: Reception | None) -> None:
        pause_s = self._first_pause_s
        while reception is not None:
            begun_s = self._clock()
            try:
                self._receive(reception)
            except Exception as error:  # noqa: BLE001 — a defect here must be told, not die with the thread
                self._broken(error)
                if self._clock() - begun_s >= LONGEST_PAUSE_S:
                    pause_s = self._first_pause_s
            self._close(reception)
            tally, reception = reception.tally(), None
            self.applied.set()
            while reception is None and not self._stopping.wait(pause_s):
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                reception = self._opened_again(tally)
        self._changes = deque(maxlen=0)  # nobody takes them any more

    def _receive(self, reception: Reception) -> None:
        while not self._stopping.is_set():
            reception.wait()
            self._take_members(reception)
            reception.turn()
            self.applied.set()

    def _broken(self, error: Exception) -> None:
        self.problem = self.last_problem = f"{type(error).__name__}: {error}"
        _logger.error("KV events are not received for the moment, what was known of caches is forgotten", exc=error)

    def _close(self, reception: Reception) -> None:
        """Close all sockets and, unless it is the end, forget what nobody keeps up to date."""
        try:
            reception.close()
            if self.problem:
                self._forget_all()
        except Exception as error:  # noqa: BLE001 — the same, or what follows from it
            _logger.error("KV events: what a defect left cannot be put in order", exc=error)

    def _forget_all(self) -> None:
        """Treat all pods as if messages of theirs were missed. What requests are assumed to leave behind is assumed on."""
        for pod in self._index.counts().pods:
            if pod in self._attribution.endpoints:
                self._index.clear(pod)
            else:
                self._index.forget(pod)

    def _opened_again(self, tally: Tally) -> Reception | None:
        """New sockets; None if there cannot be any, which is told."""
        try:
            reception = Reception(self._index, self._settings, self._clock, tally)
        except OSError as error:
            self.problem = self.last_problem = str(error)
            _logger.warning("KV events cannot be received yet", error=self.problem)
            return None
        except Exception as error:  # noqa: BLE001 — tried again
            self._broken(error)
            return None
        self._reception = reception  # first, so that who follows from now on wakes up this one
        self.problem = ""
        try:
            while self._changes:
                self._attribution = self._changes.popleft().attribution
            self._forget_all()
            reception.take([Members(self._attribution, ())])
        except Exception as error:  # noqa: BLE001 — tried again
            self._broken(error)
            self._close(reception)
            return None
        self.restarts += 1
        self.applied.set()
        _logger.info("KV events are received again", restarts=self.restarts)
        return reception

    def _take_members(self, reception: Reception) -> None:
        changes: list[Members] = []
        while self._changes:
            changes.append(self._changes.popleft())
        if changes:
            self._attribution = changes[-1].attribution
            reception.take(changes)
            self.applied.set()
