"""The thread that receives KV events and applies them to the index, so that no flood of them reaches the event loop."""

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


class EventReceiver:
    """Receives on sockets of its own thread.

    Args:
        index: events are applied to.
        settings: which sockets.
        clock: seconds.
    """

    def __init__(self, index: EventIndex, settings: ReceiverSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock
        self._reception: Reception | None = None
        self._thread: threading.Thread | None = None
        self._changes: deque[Members] = deque()
        self._stopping = False
        self._has_warned = False
        self.problem = ""
        """Why nothing is received any longer, by a defect; empty = it is, or is not wanted to be."""
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
        if self._thread is None:  # nothing is known of anybody yet, so that only who is there now counts
            self._changes.clear()
        self._changes.append(Members(Attribution(wanted), [endpoint.host_port for endpoint in gone]))
        self._wake_up()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopping = True
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
        return self._reception.counts() if self._reception is not None else Tally().counts((), {}, 0)

    def connected(self) -> dict[str, bool]:
        """Pod → whether its socket is connected."""
        return self._reception.connected() if self._reception is not None else {}

    def _wake_up(self) -> None:
        if self._reception is not None:
            self._reception.wake_up()

    # ── the thread ──

    def _run(self, reception: Reception) -> None:
        try:
            while not self._stopping:
                reception.wait()
                self._take_members(reception)
                reception.turn()
                self.applied.set()
        except Exception as error:  # noqa: BLE001 — a defect here must be told, not die with the thread
            self.problem = f"{type(error).__name__}: {error}"
            _logger.error("KV events are not received any longer", exc=error)
        finally:
            self._changes = deque(maxlen=0)  # nobody takes them any more
            reception.close()

    def _take_members(self, reception: Reception) -> None:
        changes: list[Members] = []
        while self._changes:
            changes.append(self._changes.popleft())
        if changes:
            reception.take(changes)
            self.applied.set()
