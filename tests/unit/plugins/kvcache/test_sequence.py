"""Numbers of messages: restarts, gaps, replays, and what is applied when they fail."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.kvcache import sequence
from plugins.kvcache.sequence import COOL_DOWN_S, Action, Apply, Clear, Sequence, StartReplay, StopReplay


def said(actions: Iterable[Action]) -> list[int | str]:
    """Actions in short: the number of what is applied, clear, replay N, stop."""
    words: list[int | str] = []
    for action in actions:
        match action:
            case Apply(payload):
                words.append(int(payload))
            case Clear():
                words.append("clear")
            case StartReplay(start):
                words.append(f"replay {start}")
            case StopReplay():
                words.append("stop")
    return words


class Publisher:
    """A sequence under test, and its clock."""

    def __init__(self, *, replays: bool) -> None:
        self.sequence = Sequence(replays=replays)
        self.now_s = 100.0

    def live(self, *numbers: int) -> list[int | str]:
        return said(a for n in numbers for a in self.sequence.live(n, b"%d" % n, self.now_s))

    def replayed(self, *numbers: int) -> list[int | str]:
        self.sequence.replay_started(self.now_s)
        return said(a for n in numbers for a in self.sequence.replayed(n, b"%d" % n, self.now_s))

    def ended(self) -> list[int | str]:
        return said(self.sequence.replay_ended(self.now_s))

    def after(self, seconds: float) -> list[int | str]:
        self.now_s += seconds
        return said(self.sequence.tick(self.now_s))

    def times_out(self) -> list[int | str]:
        words: list[int | str] = []
        for _ in range(3):
            self.sequence.replay_started(self.now_s)
            words += self.after(2.0)
        return words


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        pytest.param((0, 1, 1, 2), [0, 1, 2], id="prefix 73: a message twice"),
        pytest.param((5, 6, 0), [5, 6, "clear", 0], id="prefix 74: the engine restarted"),
        pytest.param((0, 5, 6), [0, 5, 6], id="a gap"),
        pytest.param((0, 1001, 1002), [0, 1001, 1002], id="a thousand missed"),
        pytest.param((0, 1002, 1003), [0, "clear", 1002, 1003], id="more than a thousand missed"),
    ],
)
def test_without_a_replay_socket(numbers: tuple[int, ...], expected: list[int | str]) -> None:
    publisher = Publisher(replays=False)
    assert said(publisher.sequence.connected()) == []
    assert publisher.live(*numbers) == expected
    assert publisher.sequence.deadline_s is None


def test_gaps_are_counted() -> None:
    publisher = Publisher(replays=False)
    publisher.live(0, 3, 4, 6, 0)
    sequence = publisher.sequence
    assert (sequence.gaps, sequence.missed, sequence.restarts) == (2, 3, 1)


def test_prefix_75_who_joins_late_has_the_beginning_replayed() -> None:
    publisher = Publisher(replays=True)
    assert publisher.live(5) == ["replay 0"]
    assert publisher.replayed(0, 1, 2, 3, 4) == [0, 1, 2, 3, 4]
    assert publisher.ended() == ["stop", 5]
    assert publisher.live(6) == [6]


def test_prefix_76_a_gap_is_replayed_from_its_first_number() -> None:
    publisher = Publisher(replays=True)
    assert publisher.live(0, 1, 2, 3) == [0, 1, 2, 3]
    assert publisher.live(7, 8) == ["replay 4"]
    assert publisher.replayed(4, 5, 6, 7) == [4, 5, 6, 7]
    assert publisher.ended() == ["stop", 8]


def test_prefix_77_a_replay_that_skips_a_number_fails() -> None:
    publisher = Publisher(replays=True)
    publisher.live(0, 1, 2, 3, 7)
    assert publisher.replayed(4, 6) == [4, "stop", "clear", 7]
    assert publisher.live(8, 10) == [8, 10], "live events are applied all the same"
    assert publisher.after(COOL_DOWN_S - 0.1) == []
    assert publisher.after(0.1) == ["replay 0"]


def test_prefix_77_a_replay_that_times_out_fails() -> None:
    publisher = Publisher(replays=True)
    publisher.live(0, 1, 2, 3, 7)
    assert publisher.times_out() == ["replay 4", "replay 4", "stop", "clear", 7]
    assert publisher.live(8) == [8]


def test_prefix_78_an_end_without_a_message_fails_unless_everything_was_asked_for() -> None:
    publisher = Publisher(replays=True)
    publisher.live(0, 1, 5)
    assert publisher.ended() == ["stop", "clear", 5]
    publisher = Publisher(replays=True)
    assert said(publisher.sequence.connected()) == ["replay 0"]
    assert publisher.ended() == ["stop"]
    assert publisher.live(0) == [0]


def test_a_ring_that_overflowed_is_still_useful() -> None:
    publisher = Publisher(replays=True)
    publisher.live(100)
    assert publisher.replayed(90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100) == list(range(90, 101))
    assert publisher.ended() == ["stop"]


def test_an_attempt_goes_on_where_the_last_one_ended() -> None:
    publisher = Publisher(replays=True)
    publisher.live(9)
    assert publisher.replayed(0, 1, 2) == [0, 1, 2]
    assert publisher.after(2.0) == ["replay 3"]
    assert publisher.replayed(3, 4, 5, 6, 7, 8) == [3, 4, 5, 6, 7, 8]
    assert publisher.ended() == ["stop", 9]


def test_progress_gives_new_attempts_but_not_for_ever() -> None:
    publisher = Publisher(replays=True)
    publisher.live(1_000)
    for number in range(60):
        assert publisher.replayed(number) == [number]
        words = publisher.after(2.0)
    assert words == ["stop", "clear", 1_000]


def test_a_restart_while_replaying_begins_anew() -> None:
    publisher = Publisher(replays=True)
    publisher.live(5, 6)
    assert publisher.replayed(0, 1) == [0, 1]
    assert publisher.live(0) == ["clear", "replay 0"]
    assert publisher.replayed(0, 1) == [0, 1]
    assert publisher.ended() == ["stop"]


def test_after_a_cool_down_what_came_meanwhile_is_kept_until_the_replay_brings_more() -> None:
    publisher = Publisher(replays=True)
    publisher.live(5)
    publisher.times_out()
    assert publisher.live(6) == [6]
    assert publisher.after(COOL_DOWN_S) == ["replay 0"]
    assert publisher.live(7) == []
    assert publisher.times_out() == ["replay 0", "replay 0", "stop", 7], "nothing is cleared in vain"
    assert publisher.after(COOL_DOWN_S) == [], "the second cool-down is longer"
    assert publisher.after(COOL_DOWN_S) == ["replay 0"]
    assert publisher.replayed(*range(8)) == ["clear", *range(8)]
    assert publisher.ended() == ["stop"]
    assert publisher.live(8) == [8]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "MAX_WAITING", 10)
    publisher = Publisher(replays=True)
    assert publisher.live(*range(5, 15)) == ["replay 0"]
    assert publisher.live(15) == ["stop", "clear", *range(5, 16)]


def test_a_socket_that_breaks_is_an_attempt() -> None:
    publisher = Publisher(replays=True)
    publisher.live(5)
    assert said(publisher.sequence.replay_broke(publisher.now_s)) == ["replay 0"]


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=40))
def test_with_replays_nothing_is_applied_out_of_order(steps: list[tuple[int, bool]]) -> None:
    """A publisher goes on, loses messages, or restarts; its ring has all since its last start."""
    publisher, published = Publisher(replays=True), -1
    applied: list[int | str] = []
    for skip, answers in steps:
        published = published + skip if skip else 0
        words = publisher.live(published) if published >= 0 else []
        applied += words
        while publisher.sequence.is_replaying and answers:
            start = next(int(word.split()[1]) for word in reversed(applied) if str(word).startswith("replay"))
            applied += publisher.replayed(*range(start, published + 1))
            applied += publisher.ended()
    last: int | None = None
    for word in applied:
        if word == "clear":
            last = None
        elif isinstance(word, int):
            assert word == (0 if last is None else last + 1)
            last = word
