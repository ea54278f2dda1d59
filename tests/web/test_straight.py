"""/upstream/{slot}/...: anything to one slot's engine, for whoever looks for a fault. On the unix socket only."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, web
from plane import Bench, Engine, bench_of, error_of, free_port, gated, served_on_tcp, sse, until
from scenes import Scene
from yarl import URL

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["", "health", "v1/chat/completions?a=b&c=%2F", "slots/0?action=save", "a%2Fb/%C3%A9"])
async def test_any_method_on_any_path_passes_as_it_is(bench: Bench, method: str, path: str) -> None:
    body = b'{"model": "other", "keep_alive": 5}'
    url = URL(f"/upstream/chat/{path}", encoded=True)
    async with bench.client.request(method, url, data=body, headers={"X-Mine": "yes"}) as answer:
        assert (answer.status, await answer.json()) == (200, {"said": "hello"})
    (asked,) = bench.engine.asked
    assert (asked.method, asked.raw_path, asked.headers["X-Mine"]) == (method, f"/{path}", "yes")
    assert bench.engine.bodies == [body]


@pytest.mark.parametrize(
    ("target", "seen"),
    [("/upstream/chat", "/"), ("/upstream/chat?x=/a", "/?x=/a"), ("/%75pstream/chat/health?x=1", "/health?x=1")],
)
async def test_the_rest_of_the_target_is_the_engines_whatever_stands_before_it(
    bench: Bench, target: str, seen: str
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(bench.socket))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()
    assert bench.engine.asked[0].raw_path == seen


async def test_an_answer_to_head_has_no_body(bench: Bench) -> None:
    async with bench.client.head("/upstream/chat/health") as answer:
        assert (answer.status, answer.headers["Content-Length"], await answer.read()) == (200, "17", b"")
    async with bench.client.get("/upstream/chat/health") as answer:
        assert await answer.json() == {"said": "hello"}


async def test_an_engine_that_is_not_ready_is_asked_all_the_same(scene: Scene, engine: Engine) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    async with bench_of(scene, engine) as bench:
        assert scene.states() == {"chat": SlotState.WARMING}
        before = scene.reconciler.demands.all
        scene.clock.forward(1)
        async with bench.client.get("/upstream/chat/health") as answer:
            assert answer.status == 200
    assert scene.reconciler.demands.all == before


async def test_a_slot_that_is_down_is_not_started_by_it(scene: Scene) -> None:
    async with bench_of(scene, Engine(port=free_port()), run="on-demand") as bench:
        async with bench.client.get("/upstream/chat/health") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (502, "1")
            assert error_of(await answer.json()) == ("api_error", "slot.unreachable")
        await scene.settle()
    assert scene.host.starts == {}


async def test_a_slot_that_is_not_there_is_not_found(bench: Bench) -> None:
    for name in ("nobody", "", "..", "chat%20"):
        async with bench.client.get(f"/upstream/{name}/health") as answer:
            assert answer.status == 404
            assert error_of(await answer.json())[1] in {"request.not_found", "route.not_found"}
    assert bench.engine.asked == []


async def test_it_is_not_taken_over_tcp(scene: Scene, engine: Engine) -> None:
    async with bench_of(scene, engine), served_on_tcp(scene) as address, ClientSession(address) as client:
        for path in ("/upstream/chat/health", "/%75pstream/chat/health", "/upstream/nobody/health"):
            async with client.get(path) as answer:
                assert answer.status == 403
                assert error_of(await answer.json()) == ("permission_error", "auth.local_only")
    assert engine.asked == []


async def test_a_stream_passes_as_it_comes_and_a_client_that_goes_cancels_it(bench: Bench) -> None:
    bench.engine.answer = sse(b"data: 1\n\n", b"data: 2\n\n")
    async with bench.client.post("/upstream/chat/v1/completions", json={}) as answer:
        assert await answer.read() == b"data: 1\n\ndata: 2\n\n"
    bench.engine.answer = gated(asyncio.Event(), first=b"data: 1\n\n")
    answer = await bench.client.post("/upstream/chat/v1/completions", json={})
    assert await answer.content.readany() == b"data: 1\n\n"
    answer.close()
    await until(bench.engine.cancelled.is_set)


async def test_credentials_of_the_client_are_not_the_engines_business(bench: Bench) -> None:
    headers = {"Authorization": "Bearer mine", "Cookie": "a=b"}
    async with bench.client.get("/upstream/chat/health", headers=headers) as answer:
        assert answer.status == 200
    assert "mine" not in repr(bench.engine.asked[0].headers)


async def test_an_engines_own_error_is_passed_on(bench: Bench) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=507, reason="Full", body=b"\xff", headers={"X-Engine": "yes"})

    bench.engine.answer = answer
    async with bench.client.delete("/upstream/chat/slots/0") as found:
        assert (found.status, found.reason, await found.read()) == (507, "Full", b"\xff")
        assert found.headers["X-Engine"] == "yes"
