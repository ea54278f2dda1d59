"""The data plane put together, with the tasks that run beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from hal0.dispatch.dispatcher import Dispatcher
from hal0.dispatch.gate import Gate
from hal0.dispatch.guard import Guard
from hal0.dispatch.measures import Measures
from hal0.dispatch.pool import Pool
from hal0.dispatch.records import Recorder
from hal0.dispatch.send import Sender
from hal0.dispatch.upstreams import Upstreams
from hal0.host.tasks import end
from hal0.loop.news import Feed, LoadNews
from hal0.loop.reconcile import Reconciler


@asynccontextmanager
async def data_plane(reconciler: Reconciler, measures: Measures) -> AsyncIterator[Dispatcher]:
    """Return a dispatcher over a reconciler, for as long as the context lasts."""
    pool, gate = Pool(), Gate(reconciler)
    recorder = Recorder(measures, reconciler.requests, reconciler.prover.suspect)
    upstreams = Upstreams(reconciler, pool)
    dispatcher = Dispatcher(
        reconciler, Guard(reconciler), Sender(reconciler, pool, upstreams, gate), upstreams, recorder
    )
    beside = (
        gate.watch(),
        pool.sweep(),
        upstreams.refresh(),
        _count_loads(reconciler.feed, measures),
    )
    async with background(*beside):
        try:
            yield dispatcher
        finally:
            upstreams.close()
            recorder.flush()
            pool.close()


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines for as long as the context lasts."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        await end(tasks)


async def _count_loads(feed: Feed, measures: Measures) -> None:
    with feed.subscribe() as news:
        while True:
            item = await news.get()
            if isinstance(item, LoadNews):
                measures.loaded(item.slot, item.seconds)
