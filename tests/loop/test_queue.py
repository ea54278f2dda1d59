from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hal0.loop.queue import WorkQueue


def test_a_key_that_is_added_often_comes_once() -> None:
    queue = WorkQueue()
    for _ in range(3):
        queue.add("chat")
    assert queue.take(0.0) == {"chat"}
    assert queue.take(0.0) == frozenset()


def test_a_key_comes_when_it_is_due_and_not_before() -> None:
    queue = WorkQueue()
    queue.add("chat", 5.0)
    assert queue.take(4.9) == frozenset()
    assert queue.take(5.0) == {"chat"}


def test_the_earliest_of_many_times_wins() -> None:
    queue = WorkQueue()
    for due in (9.0, 5.0, 7.0):
        queue.add("chat", due)
    assert queue.next_due() == 5.0


def test_taking_leaves_what_is_not_due() -> None:
    queue = WorkQueue()
    queue.add("now")
    queue.add("later", 5.0)
    assert queue.take(1.0) == {"now"}
    assert queue.next_due() == 5.0


def test_an_empty_queue_is_never_due() -> None:
    assert WorkQueue().next_due() is None


async def test_waiting_ends_at_once_where_a_key_is_due() -> None:
    queue = WorkQueue()
    queue.add("chat", 5.0)
    await queue.wait(6.0)
    assert queue.take(6.0) == {"chat"}


async def test_waiting_ends_when_a_key_is_added() -> None:
    queue = WorkQueue()
    queue.add("later", 1e9)
    waiting = asyncio.create_task(queue.wait(0.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add("chat")
    await asyncio.wait_for(waiting, 5)


async def test_waiting_ends_when_time_makes_a_key_due() -> None:
    queue = WorkQueue()
    queue.add("chat", 100.01)
    await asyncio.wait_for(queue.wait(100.0), 5)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10))), st.floats(0, 10))
def test_what_is_taken_is_exactly_what_was_due(added: list[tuple[str, float]], now: float) -> None:
    queue = WorkQueue()
    for key, due in added:
        queue.add(key, due)
    assert queue.take(now) == {key for key, due in added if due <= now}
    left = queue.next_due()
    assert left is None or left > now
