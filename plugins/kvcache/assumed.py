"""Blocks that are assumed to be cached for a moment, because their prompt was just sent there.

The engine's event comes only after it has computed them; until then a burst of equal prompts would be scattered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from plugins.kvcache.pods import Pod


class _Assumption(NamedTuple):
    until_s: float
    epoch: int


class Assumed:
    """What is assumed of each pod, until when. Used on the event loop alone.

    Args:
        limit: most keys of all prompts that are remembered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_key: dict[int, dict[Pod, _Assumption]] = {}
        self._prompts: deque[tuple[float, Pod, Sequence[int]]] = deque()
        self._remembered = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, keys: Sequence[int], pod: Pod, until_s: float) -> None:
        """Assume that a pod holds these; what was assumed before holds as long as before, or longer."""
        keys = keys[: self._limit]
        assumption = _Assumption(until_s, pod.epoch)
        for key in keys:
            pods = self._by_key.setdefault(key, {})
            old = pods.get(pod)
            if old is None or old.until_s < until_s or old.epoch != pod.epoch:
                pods[pod] = assumption
        self._prompts.append((until_s, pod, keys))
        self._remembered += len(keys)
        while self._remembered > self._limit:
            self._forget_oldest(float("inf"))

    def sweep(self, now_s: float) -> None:
        """Forget what is over."""
        while self._prompts and self._prompts[0][0] <= now_s:
            self._forget_oldest(now_s)

    def mask(self, key: int, now_s: float) -> int:
        """The slots of the pods that are assumed to hold this block."""
        pods = self._by_key.get(key)
        if pods is None:
            return 0
        mask = 0
        for pod, (until_s, epoch) in pods.items():
            if until_s > now_s and epoch == pod.epoch and pod.slot >= 0:
                mask |= 1 << pod.slot
        return mask

    def _forget_oldest(self, now_s: float) -> None:
        until_s, pod, keys = self._prompts.popleft()
        self._remembered -= len(keys)
        over_s = min(now_s, until_s)
        for key in keys:
            pods = self._by_key.get(key)
            assumption = pods.get(pod) if pods is not None else None
            if pods is not None and assumption is not None and assumption.until_s <= over_s:
                del pods[pod]
                if not pods:
                    del self._by_key[key]
