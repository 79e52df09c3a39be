"""The thread that receives KV events and applies them to the index, so that no flood of them reaches the event loop."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import zmq

from epp.framework import log
from epp.framework.types import Endpoint
from plugins.kvcache.attribution import Attribution, Topic, parse_topic
from plugins.kvcache.event_index import EventIndex
from plugins.kvcache.event_processor import Source
from plugins.kvcache.links import Frames, Link, published, replay_request, replayed, subscriber
from plugins.kvcache.receiver_settings import ReceiverSettings, binds, socket_address
from plugins.kvcache.sequence import END, Action, Apply, Clear, StartReplay
from plugins.kvcache.sequence import Sequence as Numbers
from plugins.kvcache.strangers import Strangers

_logger = log.get(__name__)

MAX_REPLAYS = 8
"""At one time; a picker that starts would ask all pods at once."""
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


class ReceiverCounts(NamedTuple):
    """What happened since the start; copies."""

    received: dict[str, int]
    """Messages by pod, "" for the central socket."""
    dropped: dict[str, int]
    """By reason: frames, topic, stranger, replay."""
    errors: dict[tuple[str, str], int]
    """By pod and operation."""
    reconnections: dict[str, int]
    """By pod."""
    subscribers: int
    gaps: int
    missed: int
    restarts: int
    replays: int
    replays_failed: int


class _PodLink(NamedTuple):
    """What belongs to a pod's connection."""

    endpoint: Endpoint
    link: Link
    watcher: Link
    numbers: Numbers


class _Members(NamedTuple):
    """The pool after a change."""

    attribution: Attribution
    gone: Sequence[str]
    """Pods that left in this change, whoever may have their names now."""


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
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._thread: threading.Thread | None = None
        self._attribution = Attribution()
        self._changes: deque[_Members] = deque()
        self._stopping = False
        self._has_warned = False
        self._wake = -1
        self._epoll: select.epoll | None = None
        self._links: dict[int, Link] = {}
        self._pending: list[tuple[Source, bytes]] = []
        self._ready: OrderedDict[Link, None] = OrderedDict()
        self._central: Link | None = None
        self._pods: dict[str, _PodLink] = {}
        self._publishers: OrderedDict[tuple[str, str], Numbers] = OrderedDict()
        self._replays: dict[str, Link] = {}
        self._replays_due: OrderedDict[str, int] = OrderedDict()
        self._strangers = Strangers()
        self._past: Counter[str] = Counter()
        self._received: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self.central_port = 0
        """Where the central socket is bound; 0 = nowhere."""
        self.last_message_s: dict[str, float] = {}
        """Pod → when it said something."""
        self.applied = threading.Event()
        """Set after messages were applied or members changed, for tests; they clear it."""

    # ── the event loop's side ──

    def start(self) -> None:
        """Bind what is to be bound, and begin to receive.

        Raises:
            OSError: the address cannot be bound.
        """
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        context.set(zmq.MAX_SOCKETS, min(65_536, context.get(zmq.SOCKET_LIMIT)))
        self._context = context
        if self._settings.central:
            try:
                self._central = self._open_central(self._settings.central)
            except zmq.ZMQError as error:
                context.destroy(linger=0)
                self._context = None
                raise OSError(error.errno, f"kvEventsConfig.zmqEndpoint {self._settings.central}: {error.strerror}") from error
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="kv-events", daemon=True)
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
        self._changes.append(_Members(Attribution(wanted), [endpoint.host_port for endpoint in gone]))
        self._wake_up()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopping = True
        self._wake_up()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def counts(self) -> ReceiverCounts:
        """What happened since the start."""
        numbers = [pod.numbers for pod in list(self._pods.values())] + list(self._publishers.values())
        past = self._past
        return ReceiverCounts(
            dict(self._received),
            dict(self._dropped),
            dict(self._errors),
            {name: max(0, pod.link.connections - 1) for name, pod in list(self._pods.items())},
            len(self._pods) + (self._central is not None),
            past["gaps"] + sum(each.gaps for each in numbers),
            past["missed"] + sum(each.missed for each in numbers),
            past["restarts"] + sum(each.restarts for each in numbers),
            past["replays"] + sum(each.replays_done for each in numbers),
            past["replays_failed"] + sum(each.replays_failed for each in numbers),
        )

    def connected(self) -> dict[str, bool]:
        """Pod → whether its socket is connected."""
        return {name: pod.link.is_connected for name, pod in list(self._pods.items())}

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # ── the thread's side ──

    def _run(self) -> None:
        if self._central is not None:
            self._add(self._central)
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:  # noqa: BLE001 — a defect here must be told, not die with the thread
            _logger.error("KV events are not received any longer", exc=error)
        finally:
            self._close()

    def _turn(self) -> None:
        self._wait()
        begun = time.perf_counter()
        self._take_members()
        for link in list(self._ready):
            if not self._drain(link):
                self._ready.pop(link, None)
            if len(self._pending) >= _MOST_PENDING:
                self._apply_pending()
            if time.perf_counter() - begun > _PAUSE_AFTER_S:
                time.sleep(_PAUSE_S)
                begun = time.perf_counter()
        self._tick()
        self._apply_pending()
        self.applied.set()

    def _apply_pending(self) -> None:
        """Apply what was received; many messages in one call, as each call lets the event loop have the interpreter."""
        if self._pending:
            messages, self._pending = self._pending, []
            self._index.apply_all(messages)

    def _wait(self) -> None:
        assert self._epoll is not None
        now_s = self._clock()
        deadlines = [pod.numbers.deadline_s for pod in self._pods.values()] if self._settings.replay_port else []
        nearest_s = min((deadline for deadline in deadlines if deadline is not None), default=now_s + _IDLE_S)
        timeout_s = 0.0 if self._ready else min(max(0.0, nearest_s - now_s), _IDLE_S)
        for fd, _ in self._epoll.poll(timeout_s):
            if fd == self._wake:
                os.eventfd_read(self._wake)
            elif (link := self._links.get(fd)) is not None:
                self._ready[link] = None

    def _drain(self, link: Link) -> bool:
        """Read a socket; whether there may be more."""
        if link.fd not in self._links or self._links[link.fd] is not link:
            return False
        try:
            return link.drain(_TURN)
        except zmq.ZMQError as error:
            self._errors[link.name, "recv"] += 1
            _logger.debug("KV events cannot be read", pod=link.name, error=str(error))
            return False

    def _tick(self) -> None:
        now_s = self._clock()
        if self._settings.replay_port:
            for name, pod in list(self._pods.items()):
                deadline_s = pod.numbers.deadline_s
                if deadline_s is not None and deadline_s <= now_s:
                    self._act(name, self._source(name, Topic("")), pod.numbers.tick(now_s))
        expired = self._strangers.expired(now_s)
        if expired:
            self._apply_pending()
        for stranger in expired:
            self._forget(stranger)

    # ── members ──

    def _take_members(self) -> None:
        if not self._changes:
            return
        self._apply_pending()
        before, attribution, gone = self._attribution.endpoints, self._attribution, set[str]()
        while self._changes:
            attribution, names = self._changes.popleft()
            gone.update(names)
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
        self.applied.set()

    def _leave(self, name: str) -> None:
        pod = self._pods.pop(name, None)
        if pod is not None:
            self._stop_replay(name)
            self._count_past(pod.numbers)
            # In this order: a socket that closes says so to its watcher, and waits for ever for one that is gone.
            self._remove(pod.link)
            self._remove(pod.watcher)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Nobody publishes under this name any more."""
        self.last_message_s.pop(name, None)
        self._received.pop(name, None)
        for key in [key for key in self._errors if key[0] == name]:
            del self._errors[key]
        for publisher in [key for key in self._publishers if key[0] == name]:
            self._count_past(self._publishers.pop(publisher))
        self._index.forget(name)

    def _connect(self, name: str, endpoint: Endpoint) -> None:
        assert self._context is not None
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
        self._add(watcher)
        self._add(link)
        self._act(name, self._source(name, Topic("")), numbers.connected())

    def _failed(self, name: str, operation: str, error: zmq.ZMQError) -> None:
        self._errors[name, operation] += 1
        _logger.warning("no KV events of this pod", pod=name, operation=operation, error=str(error))

    def _open_central(self, address: str) -> Link:
        assert self._context is not None
        raw = subscriber(self._context, self._settings.topic_filter)
        if binds(address):
            raw.bind(address)
            bound = raw.getsockopt(zmq.LAST_ENDPOINT)
            if isinstance(bound, bytes) and bound.startswith(b"tcp"):
                self.central_port = int(bound.rstrip(b"\0").rpartition(b":")[2])
        else:
            raw.connect(address)
        return Link(raw, "", self._of_any)

    # ── messages ──

    def _of_pod(self, name: str, frames: Frames) -> None:
        """A message over a pod's own connection."""
        message = published(frames)
        pod = self._pods.get(name)
        if message is None or pod is None:
            self._dropped["frames"] += 1
            return
        topic, number, payload = message
        now_s = self._note(name)
        source = self._source(name, parse_topic(topic.decode("utf-8", "replace")))
        self._act(name, source, pod.numbers.live(number, payload, now_s))

    def _of_any(self, frames: Frames) -> None:
        """A message over the central socket."""
        message = published(frames)
        if message is None:
            self._dropped["frames"] += 1
            return
        topic, number, payload = message
        named = parse_topic(topic.decode("utf-8", "replace"))
        if not named.pod:
            self._dropped["topic"] += 1
            return
        source = self._attribution.of_topic(named)
        if source is None:
            if not self._strangers.admits(named.pod, self._clock()):
                self._dropped["stranger"] += 1
                return
            source = Source(named.pod, (), named.model)
        now_s = self._note(source.pod)
        if source.by_rank:
            # Several publishers under one name, each with numbers of its own.
            self._pending.append((source, payload))
            return
        numbers = self._numbers(source.pod, named.model)
        self._act(source.pod, source, numbers.live(number, payload, now_s))

    def _numbers(self, pod: str, model: str) -> Numbers:
        numbers = self._publishers.get((pod, model))
        if numbers is None:
            numbers = self._publishers[pod, model] = Numbers()
            if len(self._publishers) > MAX_PUBLISHERS:
                self._count_past(self._publishers.popitem(last=False)[1])
        return numbers

    def _source(self, name: str, topic: Topic) -> Source:
        return self._attribution.of_connection(name, topic)

    def _note(self, name: str) -> float:
        now_s = self._clock()
        self._received[name] += 1
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
                self._stop_replay(name)
                self._replays_due[name] = action.start
            else:
                self._stop_replay(name)
        self._start_replays()

    def _published_by(self, source: Source) -> list[str]:
        """The pods of a publisher: its own, and ranks that never spoke over a connection of their own."""
        silent = [pod for pod in source.by_rank if pod in self._pods and not self._pods[pod].link.connections]
        return list(dict.fromkeys((source.pod, *silent)))

    # ── replays ──

    def _start_replays(self) -> None:
        while self._replays_due and len(self._replays) < MAX_REPLAYS:
            name, start = self._replays_due.popitem(last=False)
            pod = self._pods.get(name)
            if pod is None:
                continue
            assert self._context is not None
            try:
                raw = replay_request(self._context, socket_address(pod.endpoint, self._settings.replay_port), start)
            except zmq.ZMQError as error:
                self._errors[name, "replay-connect"] += 1
                _logger.debug("messages cannot be replayed", pod=name, error=str(error))
                self._act(name, self._source(name, Topic("")), pod.numbers.replay_broke(self._clock()))
                continue
            link = Link(raw, name, lambda frames, name=name: self._of_replay(name, frames))  # type: ignore[misc]
            self._replays[name] = link
            self._add(link)
            pod.numbers.replay_started(self._clock())

    def _of_replay(self, name: str, frames: Frames) -> None:
        message = replayed(frames)
        pod = self._pods.get(name)
        if message is None or pod is None:
            self._dropped["replay"] += 1
            return
        number, payload = message
        now_s = self._clock()
        actions = pod.numbers.replay_ended(now_s) if number == END else pod.numbers.replayed(number, payload, now_s)
        self._act(name, self._source(name, Topic("")), actions)

    def _stop_replay(self, name: str) -> None:
        self._replays_due.pop(name, None)
        link = self._replays.pop(name, None)
        if link is not None:
            self._remove(link)

    # ── sockets ──

    def _add(self, link: Link) -> None:
        assert self._epoll is not None
        self._links[link.fd] = link
        self._epoll.register(link.fd, select.EPOLLIN)
        # What came before it was waited for raises no event.
        self._ready[link] = None

    def _remove(self, link: Link) -> None:
        assert self._epoll is not None
        if self._links.get(link.fd) is link:
            del self._links[link.fd]
            self._epoll.unregister(link.fd)
        self._ready.pop(link, None)
        link.close()

    def _count_past(self, numbers: Numbers) -> None:
        for name, count in (
            ("gaps", numbers.gaps),
            ("missed", numbers.missed),
            ("restarts", numbers.restarts),
            ("replays", numbers.replays_done),
            ("replays_failed", numbers.replays_failed),
        ):
            self._past[name] += count

    def _close(self) -> None:
        self._changes = deque(maxlen=0)  # nobody takes them any more
        watchers = {pod.watcher for pod in self._pods.values()}
        for link in sorted(self._links.values(), key=watchers.__contains__):
            self._remove(link)
        if self._epoll is not None:
            self._epoll.close()
        wake, self._wake = self._wake, -1
        os.close(wake)
        if self._context is not None:
            self._context.destroy(linger=0)


def _same_socket(one: Endpoint, other: Endpoint) -> bool:
    return (one.address, one.port, one.rank_index) == (other.address, other.port, other.rank_index)
