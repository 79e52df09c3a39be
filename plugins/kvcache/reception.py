"""What the receiver's thread does: sockets of pods and of the centre, who publishes on them, and what of it is applied when."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import zmq

from epp.framework import log
from epp.framework.types import Endpoint
from plugins.kvcache.attribution import Attribution, Topic, parse_topic
from plugins.kvcache.event_index import EventIndex
from plugins.kvcache.event_processor import Source
from plugins.kvcache.link_set import LinkSet
from plugins.kvcache.links import Frames, Link, published, replayed, subscriber
from plugins.kvcache.receiver_counts import ReceiverCounts, Tally
from plugins.kvcache.receiver_settings import ReceiverSettings, binds, socket_address
from plugins.kvcache.replays import Replays
from plugins.kvcache.sequence import END, Action, Apply, Clear, StartReplay
from plugins.kvcache.sequence import Sequence as Numbers
from plugins.kvcache.strangers import Strangers

_logger = log.get(__name__)

MAX_PUBLISHERS = 10_000
"""Topics of the central socket whose numbers are followed."""
_TURN = 64
"""Messages that are read of a socket before others have their turn."""
_MOST_PENDING = 64
"""Messages that are applied in one call at most: a look-up may have to wait for one call."""
_PAUSE_AFTER_S, _PAUSE_S = 0.001, 0.00002
"""After so much work the thread sleeps for a moment, since otherwise the event loop gets the interpreter only when the switch
interval of 5 ms is over."""
_IDLE_S = 1.0
"""Longest wait, so that strangers are forgotten in time."""


class _PodLink(NamedTuple):
    """What belongs to a pod's connection."""

    endpoint: Endpoint
    link: Link
    watcher: Link
    numbers: Numbers


class Members(NamedTuple):
    """The pool after a change."""

    attribution: Attribution
    gone: Sequence[str]
    """Pods that left in this change, whoever may have their names now."""


class Reception:
    """Receives, turn by turn. The thread owns it; others may read counts, and end a wait.

    Args:
        index: events are applied to.
        settings: which sockets.
        clock: seconds.
        tally: counts on from here.

    Raises:
        OSError: the central address cannot be bound.
    """

    def __init__(
        self, index: EventIndex, settings: ReceiverSettings, clock: Callable[[], float], tally: Tally | None = None
    ) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, min(65_536, self._context.get(zmq.SOCKET_LIMIT)))
        self.central_port = 0
        """Where the central socket is bound; 0 = nowhere."""
        self._central = self._open_central(settings.central) if settings.central else None
        self._links = LinkSet()
        self._tally = tally or Tally()
        self._replays = Replays(self._context, self._links, settings.replay_port, self._tally, self._of_replay)
        self._attribution = Attribution()
        self._pending: list[tuple[Source, bytes]] = []
        self._pods: dict[str, _PodLink] = {}
        self._publishers: OrderedDict[tuple[str, str], Numbers] = OrderedDict()
        self._strangers = Strangers()
        self.last_message_s: dict[str, float] = {}
        """Pod → when it said something."""
        self.wake_up = self._links.wake_up
        if self._central is not None:
            self._links.add(self._central)

    # ── for other threads ──

    def counts(self) -> ReceiverCounts:
        """What happened since the start."""
        pods = list(self._pods.items())
        return self._tally.counts(
            [*(pod.numbers for _, pod in pods), *list(self._publishers.values())],
            {name: max(0, pod.link.connections - 1) for name, pod in pods},
            len(pods) + (self._central is not None),
        )

    def connected(self) -> dict[str, bool]:
        """Pod → whether its socket is connected."""
        return {name: pod.link.is_connected for name, pod in list(self._pods.items())}

    # ── a turn ──

    def wait(self) -> None:
        """Wait for messages, for a deadline, or to be woken up."""
        now_s = self._clock()
        deadlines = [pod.numbers.deadline_s for pod in self._pods.values()] if self._settings.replay_port else []
        nearest_s = min((deadline for deadline in deadlines if deadline is not None), default=now_s + _IDLE_S)
        self._links.wait(min(max(0.0, nearest_s - now_s), _IDLE_S))

    def turn(self) -> None:
        """Read what came, apply it, and do what is due."""
        begun = time.perf_counter()
        for link in self._links.ready:
            if not self._drain(link):
                self._links.is_empty(link)
            if len(self._pending) >= _MOST_PENDING:
                self._apply_pending()
            if time.perf_counter() - begun > _PAUSE_AFTER_S:
                time.sleep(_PAUSE_S)
                begun = time.perf_counter()
        self._tick()
        self._apply_pending()

    def close(self) -> None:
        """Close all sockets."""
        watchers = {pod.watcher for pod in self._pods.values()}
        self._links.close(watchers.__contains__)
        self._context.destroy(linger=0)

    def tally(self) -> Tally:
        """A copy of what was counted, for another one to count on."""
        return self._tally.after([*(pod.numbers for pod in self._pods.values()), *self._publishers.values()])

    def _apply_pending(self) -> None:
        """Apply what was received; many messages in one call, as each call lets the event loop have the interpreter."""
        if self._pending:
            messages, self._pending = self._pending, []
            self._index.apply_all(messages)

    def _drain(self, link: Link) -> bool:
        """Read a socket; whether there may be more."""
        if link not in self._links:
            return False
        try:
            return link.drain(_TURN)
        except zmq.ZMQError as error:
            self._tally.errors[link.name, "recv"] += 1
            _logger.debug("KV events cannot be read", pod=link.name, error=str(error))
            return False

    def _tick(self) -> None:
        now_s = self._clock()
        if self._settings.replay_port:
            for name, pod in list(self._pods.items()):
                deadline_s = pod.numbers.deadline_s
                if deadline_s is not None and deadline_s <= now_s:
                    self._act(name, self._source(name), pod.numbers.tick(now_s))
        expired = self._strangers.expired(now_s)
        if expired:
            self._apply_pending()
        for stranger in expired:
            self._forget(stranger)

    # ── members ──

    def take(self, changes: Sequence[Members]) -> None:
        """The pool has changed, once or several times."""
        self._apply_pending()
        before, attribution = self._attribution.endpoints, changes[-1].attribution
        gone = {name for change in changes for name in change.gone}
        self._attribution = attribution
        for name, endpoint in before.items():
            now = attribution.endpoints.get(name)
            if now is None or name in gone or not _same_socket(now, endpoint):
                self._leave(name)
        for name, endpoint in attribution.endpoints.items():
            self._index.admit(name)
            if self._settings.follows_pods and name not in self._pods:
                self._connect(name, endpoint)
        for stranger in self._strangers.known():
            source = attribution.of_topic(Topic(stranger))
            if source is not None:
                self._index.rename(stranger, source.pod)
                self._strangers.met(stranger)
                self._forget(stranger)

    def _leave(self, name: str) -> None:
        pod = self._pods.pop(name, None)
        if pod is not None:
            self._replays.stop(name)
            self._tally.add_past(pod.numbers)
            # In this order: a socket that closes says so to its watcher, and waits for ever for one that is gone.
            self._links.remove(pod.link)
            self._links.remove(pod.watcher)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Nobody publishes under this name any more."""
        self.last_message_s.pop(name, None)
        self._tally.forget(name)
        for publisher in [key for key in self._publishers if key[0] == name]:
            self._tally.add_past(self._publishers.pop(publisher))
        self._index.forget(name)

    def _connect(self, name: str, endpoint: Endpoint) -> None:
        try:
            raw = subscriber(self._context, self._settings.pod_topic_filter)
        except zmq.ZMQError as error:
            self._failed(name, "subscribe", error)
            return
        link = Link(raw, name, lambda frames: self._of_pod(name, frames))
        watcher = link.watch()
        try:
            raw.connect(socket_address(endpoint, self._settings.port))
        except zmq.ZMQError as error:
            link.close()
            watcher.close()
            self._failed(name, "connect", error)
            return
        numbers = Numbers(replays=self._settings.replay_port > 0)
        self._pods[name] = _PodLink(endpoint, link, watcher, numbers)
        self._links.add(watcher)
        self._links.add(link)
        self._act(name, self._source(name), numbers.connected())

    def _failed(self, name: str, operation: str, error: zmq.ZMQError) -> None:
        self._tally.errors[name, operation] += 1
        _logger.warning("no KV events of this pod", pod=name, operation=operation, error=str(error))

    def _open_central(self, address: str) -> Link:
        try:
            raw = subscriber(self._context, self._settings.topic_filter)
            if binds(address):
                raw.bind(address)
                bound = raw.getsockopt(zmq.LAST_ENDPOINT)
                if isinstance(bound, bytes) and bound.startswith(b"tcp"):
                    self.central_port = int(bound.rstrip(b"\0").rpartition(b":")[2])
            else:
                raw.connect(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise OSError(error.errno, f"kvEventsConfig.zmqEndpoint {address}: {error.strerror}") from error
        return Link(raw, "", self._of_any)

    # ── messages ──

    def _of_pod(self, name: str, frames: Frames) -> None:
        """A message over a pod's own connection."""
        message = published(frames)
        pod = self._pods.get(name)
        if message is None or pod is None:
            self._tally.dropped["frames"] += 1
            return
        topic, number, payload = message
        now_s = self._note(name)
        source = self._source(name, parse_topic(topic.decode("utf-8", "replace")))
        self._act(name, source, pod.numbers.live(number, payload, now_s))

    def _of_any(self, frames: Frames) -> None:
        """A message over the central socket."""
        message = published(frames)
        if message is None:
            self._tally.dropped["frames"] += 1
            return
        topic, number, payload = message
        named = parse_topic(topic.decode("utf-8", "replace"))
        if not named.pod:
            self._tally.dropped["topic"] += 1
            return
        source = self._attribution.of_topic(named)
        if source is None:
            if not self._strangers.admits(named.pod, self._clock()):
                self._tally.dropped["stranger"] += 1
                return
            source = Source(named.pod, (), named.model)
        now_s = self._note(source.pod)
        if source.by_rank:
            # Several publishers under one name, each with numbers of its own.
            self._pending.append((source, payload))
            return
        numbers = self._numbers(source.pod, named.model)
        self._act(source.pod, source, numbers.live(number, payload, now_s))

    def _of_replay(self, name: str, frames: Frames) -> None:
        message = replayed(frames)
        pod = self._pods.get(name)
        if message is None or pod is None:
            self._tally.dropped["replay"] += 1
            return
        number, payload = message
        now_s = self._clock()
        actions = pod.numbers.replay_ended(now_s) if number == END else pod.numbers.replayed(number, payload, now_s)
        self._act(name, self._source(name), actions)

    def _numbers(self, pod: str, model: str) -> Numbers:
        numbers = self._publishers.get((pod, model))
        if numbers is None:
            numbers = self._publishers[pod, model] = Numbers()
            if len(self._publishers) > MAX_PUBLISHERS:
                self._tally.add_past(self._publishers.popitem(last=False)[1])
        return numbers

    def _source(self, name: str, topic: Topic | None = None) -> Source:
        return self._attribution.of_connection(name, topic or Topic(""))

    def _note(self, name: str) -> float:
        now_s = self._clock()
        self._tally.received[name] += 1
        self.last_message_s[name] = now_s
        return now_s

    def _act(self, name: str, source: Source, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Apply):
                self._pending.append((source, action.payload))
            elif isinstance(action, Clear):
                self._apply_pending()
                for pod in self._published_by(source):
                    self._index.clear(pod)
            elif isinstance(action, StartReplay):
                self._replays.ask_later(name, action.start)
            else:
                self._replays.stop(name)
        self._start_replays()

    def _published_by(self, source: Source) -> list[str]:
        """The pods of a publisher: its own, and ranks that never spoke over a connection of their own."""
        silent = [pod for pod in source.by_rank if pod in self._pods and not self._pods[pod].link.connections]
        return list(dict.fromkeys((source.pod, *silent)))

    def _start_replays(self) -> None:
        while (due := self._replays.next_due()) is not None:
            name, start = due
            pod = self._pods.get(name)
            if pod is None:
                continue
            if self._replays.start(name, pod.endpoint, start):
                pod.numbers.replay_started(self._clock())
            else:
                self._act(name, self._source(name), pod.numbers.replay_broke(self._clock()))


def _same_socket(one: Endpoint, other: Endpoint) -> bool:
    return (one.address, one.port, one.rank_index) == (other.address, other.port, other.rank_index)
