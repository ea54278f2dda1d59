"""What is kept of each request: one line in the log with everything that decided, and the counters."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest
from aiohttp import ClientSession, web
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from plane import (
    CHAT,
    STREAM,
    Bench,
    awake,
    bench_of,
    engine_on,
    failing,
    gated,
    host,
    raw_server,
    said,
    served,
    sse,
    until,
    upstream,
)
from prometheus_client.parser import text_string_to_metric_families
from scenes import MODEL, Scene, slot

from hal0.core.observed import ProbeResult
from hal0.dispatch.record import Record

FIELDS = ["id", "path", "model", "target", "rule", "reason", "revision", "outcome", "status", "ms"]
_FIELD = re.compile(r' ([a-z]+)=("(?:[^"\\]|\\.)*"|[^ "]+)')


class Lines:
    """The lines of requests in hal0's log."""

    def __init__(self, log: pytest.LogCaptureFixture, client: ClientSession) -> None:
        self._log = log
        self._client = client
        log.set_level(logging.INFO, "hal0.requests")

    async def __call__(self) -> list[dict[str, Any]]:
        """Return what each line says, as one who reads the log line by line would take it; forget them then."""
        text = await self.text()
        return [_read(line) for line in text.split("\n")] if text else []

    async def text(self) -> str:
        async with self._client.get("/metrics") as answer:  # which has everything written that was not yet
            await answer.read()
        records = [record for record in self._log.records if record.name == "hal0.requests"]
        self._log.clear()
        assert {record.levelno for record in records} <= {logging.INFO}
        return "\n".join(record.getMessage() for record in records)


def _read(line: str) -> dict[str, Any]:
    assert line.startswith("request ")
    found = _FIELD.findall(line)
    assert "".join(f" {name}={value}" for name, value in found) == line.removeprefix("request"), line
    assert [name for name, _ in found] == FIELDS
    return {name: json.loads(value) if value.startswith('"') else value for name, value in found}


@pytest.fixture
def lines(bench: Bench, caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.clear()
    return Lines(caplog, bench.client)


@pytest.mark.parametrize("name", ["chat", "gpt-4o", "m", "hal0/chat"])
async def test_an_answer_is_one_line_with_everything_that_decided(either: Bench, lines: Lines, name: str) -> None:
    await lines()
    async with await either.ask({"model": name}, headers={"X-Request-Id": "mine.1"}) as answer:
        assert answer.status == 200
    (line,) = await lines()
    assert float(line.pop("ms")) > 0
    assert "chat" in line.pop("reason")
    assert line == {
        "id": "mine.1",
        "path": CHAT,
        "model": name,
        "target": "chat",
        "rule": "loaded",
        "revision": "abc",
        "outcome": "ok",
        "status": "200",
    }


async def test_an_id_of_hal0s_own_is_the_one_that_the_client_is_told(either: Bench, lines: Lines) -> None:
    await lines()
    ids = []
    for _ in range(3):
        async with await either.ask() as answer:
            ids.append(answer.headers["X-Request-Id"])
    assert [line["id"] for line in await lines()] == ids
    assert len(set(ids)) == 3


async def test_an_engines_own_error_is_an_answer(either: Bench, lines: Lines) -> None:
    await lines()
    for status in (400, 429, 500, 503):
        either.engine.answer = failing(status)
        assert (await either.said())[0] == status
    assert [(line["outcome"], line["status"]) for line in await lines()] == [
        *(("ok", "400"), ("ok", "429"), ("ok", "500"), ("ok", "503")),
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", ("request.invalid_json", "400", "-")),
        (b'{"model": "nobody"}', ("model.not_found", "404", "none")),
        (b'{"model": "chat", "keep_alive": "soon"}', ("request.invalid_keep_alive", "400", "loaded")),
        (b"{}" * 3000, ("request.too_large", "413", "-")),
    ],
)
async def test_a_refusal_is_one_line_with_its_code(
    bench: Bench, lines: Lines, body: bytes, told: tuple[str, str, str]
) -> None:
    bench.scene.declare(MODEL, host(max_body="4Ki"), slot("chat", port=bench.engine.port))
    await bench.scene.settle()
    async with bench.client.post(CHAT, data=body) as answer:
        found = answer.headers["X-Request-Id"]
    (line,) = await lines()
    assert (line["id"], line["outcome"], line["status"], line["rule"]) == (found, *told)


async def test_a_request_that_waited_in_vain_is_one_line(bench: Bench, lines: Lines) -> None:
    bench.scene.prober.answers["late"] = ProbeResult.LOADING
    bench.scene.declare(MODEL, slot("chat", port=bench.engine.port), slot("late", load_wait=0))
    await bench.scene.settle()
    assert (await bench.said({"model": "late"}))[0] == 503
    (line,) = await lines()
    assert (line["target"], line["rule"], line["outcome"]) == ("late", "bound", "slot.loading")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_has_gone_is_one_line(either: Bench, lines: Lines, begun: bool) -> None:
    await lines()
    either.engine.answer = gated(asyncio.Event(), first=b"data: 1\n\n" if begun else b"")
    asking = asyncio.create_task(either.ask({"stream": True}))
    await until(either.engine.begun.is_set)
    if begun:
        (await asking).close()
    else:
        asking.cancel()
    await until(either.engine.cancelled.is_set)
    (line,) = await lines()
    assert (line["target"], line["outcome"], line["status"]) == ("chat", "client.gone", "200" if begun else "0")


async def test_a_stream_that_broke_off_is_one_line(bench: Bench, lines: Lines) -> None:
    async with raw_server(STREAM, b"9\r\ndata: 1\n\n\r\n") as port:
        bench.scene.declare(MODEL, slot("chat", port=port))
        await bench.scene.settle()
        async with await bench.ask({"stream": True}) as answer:
            await answer.read()
    (line,) = await lines()
    assert (line["outcome"], line["status"]) == ("stream.broken", "200")


async def test_a_fallback_is_one_line_that_says_why(bench: Bench, lines: Lines) -> None:
    async with engine_on(answer=failing(503)) as one, engine_on() as far:
        bench.scene.declare(
            MODEL,
            slot("one", port=one.port, fallback="[far/big]"),
            upstream("far", f"http://127.0.0.1:{far.port}/v1", models="[big]"),
        )
        await bench.scene.settle()
        assert (await bench.said({"model": "one"}))[0] == 200
    (line,) = await lines()
    assert (line["target"], line["outcome"], line["status"]) == ("upstream/far", "ok", "200")
    assert "one: engine.failed" in line["reason"]


async def test_requests_of_no_path_of_v1_are_not_in_it(bench: Bench, lines: Lines) -> None:
    for path in ("/v1/models", "/api/status", "/nowhere"):
        (await bench.client.get(path)).close()
    assert await lines() == []


quick = settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
FORGED = "x\nrequest id=forged path=/ outcome=ok"
NAMES = {"chat", "m", "gpt-4o"}
odd = st.text(min_size=1).filter(lambda name: name.lower() not in NAMES) | st.text(
    '\n\r\x00\x0b\x1b\x7f\x85\u2028\ud800"\\= ', min_size=1, max_size=20
)


@quick
@example(FORGED)
@example(FORGED.replace("\n", "\u2028"))
@example("a" * 10_000)
@example('" outcome=ok')
@example("\x7f")
@given(name=odd)
async def test_no_model_name_can_forge_a_line_or_hide_one(bench: Bench, lines: Lines, name: str) -> None:
    async with bench.client.post("/v1/embeddings", data=json.dumps({"model": name})) as answer:
        assert answer.status == 404
    text = await lines.text()
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert len(text) < 4000
    assert _read(text)["model"] == name[:200]


@pytest.mark.parametrize("header", ["X-Request-Id", "User-Agent", "X-Forwarded-For", "Referer"])
async def test_no_header_of_a_client_is_in_the_line(bench: Bench, lines: Lines, header: str) -> None:
    async with await bench.ask(headers={header: "forged outcome=ok"}) as answer:
        assert answer.status == 200
    assert "forged" not in await lines.text()


# Counters.


async def counted(client: ClientSession) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples of each metric that is not zero, by their labels' values in the order of their names."""
    async with client.get("/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in (sample for family in families for sample in family.samples if sample.value):
        found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


async def test_requests_are_counted_by_what_became_of_them(either: Bench) -> None:
    before = (await counted(either.client)).get("hal0_requests_total", {}).get(("200", CHAT, "chat"), 0)
    await either.said()
    await either.said({"model": "nobody"})
    either.engine.answer = failing(429)
    await either.said()
    either.engine.answer = gated(asyncio.Event())
    either.engine.begun.clear()
    asking = asyncio.create_task(either.ask())
    await until(either.engine.begun.is_set)
    asking.cancel()
    await until(either.engine.cancelled.is_set)
    assert (await counted(either.client))["hal0_requests_total"] == {
        ("200", CHAT, "chat"): before + 1,
        ("404", CHAT, ""): 1,
        ("429", CHAT, "chat"): 1,
        ("client.gone", CHAT, "chat"): 1,
    }


async def test_what_clients_make_up_is_no_label(bench: Bench) -> None:
    for number in range(20):
        await bench.said({"model": f"made-up-{number}"})
        (await bench.client.post(f"/v1/made-up-{number}", json={})).close()
    async with bench.client.get("/metrics") as answer:
        assert "made-up" not in await answer.text()


async def test_tokens_are_counted_for_streams_and_for_whole_answers(either: Bench) -> None:
    usage = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    either.engine.answer = sse(b"data: 1\n\n", f"data: {json.dumps(usage)}\n\n".encode(), b"data: [DONE]\n\n")
    async with await either.ask({"stream": True}) as answer:
        await answer.read()
    assert (await counted(either.client))["hal0_prompt_tokens_total"] == {("chat",): 7}
    async with raw_server(*_whole(usage)) as port:
        either.scene.declare(MODEL, slot("chat", port=port))
        await either.scene.settle()
        assert await either.said() == (200, usage)
    found = await counted(either.client)
    assert found["hal0_prompt_tokens_total"] == {("chat",): 14}
    assert found["hal0_generation_tokens_total"] == {("chat",): 6}
    assert found["hal0_time_to_first_token_seconds_count"] == {("chat",): 1}


def _whole(body: object) -> tuple[bytes, bytes]:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text), text


async def test_the_wait_for_a_slot_is_part_of_what_is_measured(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    async with engine_on() as engine, bench_of(scene, engine) as bench, awake(scene):
        asking = asyncio.create_task(bench.said())
        await until(lambda: scene.reconciler.demands.waiting("chat"))
        del scene.prober.answers["chat"]
        scene.look("chat")
        assert (await asking)[0] == 200
        found = await counted(bench.client)
    waited = found["hal0_request_queue_seconds_sum"][("chat",)]
    assert 0 < waited <= found["hal0_request_duration_seconds_sum"][("chat",)]


async def test_requests_to_an_upstream_are_counted_under_its_name(scene: Scene) -> None:
    async with engine_on() as far:
        scene.declare(upstream("far", f"http://127.0.0.1:{far.port}/v1", models="[big]"))
        await scene.settle()
        async with served(scene) as (client, _):
            assert (await said(client, body={"model": "big"}))[0] == 200
            assert (await counted(client))["hal0_requests_total"] == {("200", CHAT, "far"): 1}


# Requests without a byte.


async def mute(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def test_an_engine_that_ends_a_request_without_a_byte_has_to_prove_itself(either: Bench) -> None:
    either.engine.answer = mute
    assert (await either.said())[0] == 502
    async with awake(either.scene):
        await until(lambda: either.scene.completer.asked == [either.engine.port])


async def test_an_engine_that_answers_need_not_prove_itself(either: Bench, lines: Lines) -> None:
    either.engine.answer = failing(500)
    await either.said()
    await lines()
    await either.scene.pass_(60)
    assert either.scene.completer.asked == []


@pytest.mark.parametrize(
    ("outcome", "seconds", "first", "target", "is_unheard"),
    [
        ("slot.unreachable", 0.1, 0.0, "chat", True),
        ("slot.unreachable", 0.1, 0.0, "upstream/chat", False),
        ("client.gone", 10.0, 0.0, "chat", True),
        ("client.gone", 9.0, 0.0, "chat", False),
        ("client.gone", 60.0, 5.0, "chat", False),
        ("slot.loading", 60.0, 0.0, "chat", False),
        ("ok", 60.0, 5.0, "chat", False),
    ],
)
def test_only_a_request_that_was_left_without_a_byte_throws_suspicion_on_a_slot(
    outcome: str, seconds: float, first: float, target: str, *, is_unheard: bool
) -> None:
    record = Record(b"1", CHAT, began=100.0, slot="chat", target=target, outcome=outcome, first=first)
    record.ended = 100.0 + seconds
    assert record.is_unheard is is_unheard
