"""The sockets of the receiver's thread, waited for together."""

from __future__ import annotations

import os
import select
import threading
from collections import OrderedDict
from collections.abc import Callable

from plugins.kvcache.links import Link


class LinkSet:
    """Links by file descriptor, and one more descriptor by which another thread ends a wait.

    A socket tells of changes only: one that has become ready stays so until it was read empty.
    """

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._ready: OrderedDict[Link, None] = OrderedDict()
        self._waking = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)

    def __contains__(self, link: Link) -> bool:
        return self._links.get(link.fd) is link

    @property
    def ready(self) -> list[Link]:
        """Those that may have messages."""
        return list(self._ready)

    def wake_up(self) -> None:
        """End a wait, from any thread."""
        with self._waking:  # what is closed meanwhile may be another's already
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout_s: float) -> None:
        """Wait until one has messages, or for so long; not at all while one is ready."""
        for fd, _ in self._epoll.poll(0.0 if self._ready else timeout_s):
            if fd == self._wake:
                os.eventfd_read(self._wake)
            elif (link := self._links.get(fd)) is not None:
                self._ready[link] = None

    def is_empty(self, link: Link) -> None:
        """It was read until nothing was left."""
        self._ready.pop(link, None)

    def add(self, link: Link) -> None:
        """Wait for it, too."""
        self._links[link.fd] = link
        self._epoll.register(link.fd, select.EPOLLIN)
        # What came before it was waited for raises no event.
        self._ready[link] = None

    def remove(self, link: Link) -> None:
        """Close it."""
        if link in self:
            del self._links[link.fd]
            self._epoll.unregister(link.fd)
        self._ready.pop(link, None)
        link.close()

    def close(self, is_watcher: Callable[[Link], bool]) -> None:
        """Close all; those that watch others last, as a socket that closes waits for a watcher that is gone."""
        for link in sorted(self._links.values(), key=is_watcher):
            self.remove(link)
        self._epoll.close()
        with self._waking:
            wake, self._wake = self._wake, -1
            os.close(wake)
