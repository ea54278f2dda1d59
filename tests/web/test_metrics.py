from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from fakes import FakeClock, FakeProber
from plane import Bench, bench_of, engine_on, families, gated, scraped, served, sse, until
from scenes import MODEL, Scene, slot, slots

from hal0.core.observed import ProbeResult
from hal0.core.state import SlotState
from hal0.errors import StepFailed

METRICS = {
    *("hal0_slot_up", "hal0_slot_state", "hal0_slot_memory_bytes", "hal0_slot_load_seconds", "hal0_drift"),
    "hal0_overrides",
    *("hal0_config_info", "hal0_observe_age_seconds", "hal0_upstream_up"),
    *("hal0_requests", "hal0_requests_in_flight", "hal0_requests_queued"),
    *("hal0_request_duration_seconds", "hal0_request_queue_seconds", "hal0_time_to_first_token_seconds"),
    *("hal0_inter_token_latency_seconds", "hal0_prompt_tokens", "hal0_generation_tokens"),
    *("hal0_slot_restarts", "hal0_reconcile_runs", "hal0_reconcile_duration_seconds"),
    *("hal0_last_apply_timestamp_seconds", "hal0_evictions", "hal0_pool_bytes", "hal0_slot_claim_bytes"),
    *("hal0_memory_bytes", "hal0_gpu_info", "hal0_gpu_memory_bytes", "hal0_gpu_busy_ratio", "hal0_model_disk_bytes"),
}


async def test_these_are_all_metrics_and_no_other(bench: Bench) -> None:
    assert {family.name for family in await families(bench.client)} == METRICS


async def test_metrics_tell_of_slots_requests_drift_and_the_manifests_in_force(bench: Bench) -> None:
    for model in ("chat", "nobody"):
        (await bench.ask({"model": model})).close()
    bench.scene.clock.forward(5)
    found = await scraped(bench.client)
    assert found["hal0_slot_up"] == {("chat",): 1}
    assert {labels[1] for labels, value in found["hal0_slot_state"].items() if value} == {"ready"}
    assert len(found["hal0_slot_state"]) == len(SlotState)
    assert found["hal0_config_info"] == {("1", "abc"): 1}
    assert found["hal0_observe_age_seconds"] == {(): 5}
    assert found["hal0_requests_total"] == {
        ("200", "/v1/chat/completions", "chat"): 1,
        ("404", "/v1/chat/completions", ""): 1,
    }
    assert found["hal0_request_duration_seconds_count"] == {("chat",): 1, ("",): 1}
    assert found["hal0_requests_in_flight"] == found["hal0_requests_queued"] == {("chat",): 0}


async def test_drift_that_is_not_healed_is_a_metric(bench: Bench) -> None:
    bench.scene.declare(MODEL, slot("chat", port=bench.engine.port, drift="alert"))
    await bench.scene.settle()
    bench.scene.host.stop("chat")
    bench.scene.look("chat")
    await bench.scene.settle()
    found = await scraped(bench.client)
    assert found["hal0_drift"][("service", "chat")] == 1
    assert found["hal0_slot_up"] == {("chat",): 0}


async def test_a_scrape_before_the_first_look_is_no_error(scene: Scene) -> None:
    async with served(scene) as (client, _):
        found = await scraped(client)
    assert "hal0_slot_up" not in found


async def test_a_request_in_flight_and_one_that_waits_are_metrics(scene: Scene) -> None:
    gate = asyncio.Event()
    async with engine_on(answer=gated(gate)) as engine, bench_of(scene, engine, concurrency=1) as bench:
        asking = [asyncio.create_task(bench.ask()) for _ in range(3)]
        await until(lambda: scene.reconciler.demands.waiting("chat") == 2)
        found = await scraped(bench.client)
        assert found["hal0_requests_in_flight"] == {("chat",): 1}
        assert found["hal0_requests_queued"] == {("chat",): 2}
        gate.set()
        for answer in await asyncio.gather(*asking):
            answer.close()


async def test_tokens_and_their_times_are_metrics_as_the_engine_tells_them(bench: Bench) -> None:
    usage = b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}'
    bench.engine.answer = sse(b"data: 1\n\n", b"data: " + usage + b"\n\n", b"data: [DONE]\n\n")
    async with await bench.ask({"stream": True}) as answer:
        await answer.read()
    found = await scraped(bench.client)
    assert found["hal0_prompt_tokens_total"] == {("chat",): 7}
    assert found["hal0_generation_tokens_total"] == {("chat",): 3}
    assert found["hal0_time_to_first_token_seconds_count"] == {("chat",): 1}
    assert found["hal0_inter_token_latency_seconds_count"] == {("chat",): 1}
    assert found["hal0_request_queue_seconds_count"] == {("chat",): 1}


async def test_the_time_that_a_load_takes_is_a_metric(scene: Scene) -> None:
    scene.prober.answers["chat"] = ProbeResult.LOADING
    async with served(scene) as (client, _):
        scene.declare(slots("chat"))
        await scene.pass_(4)
        del scene.prober.answers["chat"]
        await scene.pass_(1)
        found = await scraped(client)
    assert found["hal0_slot_load_seconds_count"] == {("chat",): 1}
    assert found["hal0_slot_load_seconds_sum"][("chat",)] == pytest.approx(4, abs=1)


# What the loop counts.


async def broken() -> None:
    raise OSError("the disk is gone")


@dataclass
class SlowProber(FakeProber):
    """Takes two seconds for each look."""

    clock: FakeClock = field(default_factory=FakeClock)

    async def probe(self, targets: Sequence[tuple[str, int, str]]) -> dict[str, ProbeResult]:
        self.clock.forward(2)
        return await super().probe(targets)


def restarts(found: dict[str, dict[tuple[str, ...], float]]) -> dict[tuple[str, ...], float]:
    """Return the restarts that are not 0, by reason and slot."""
    return {labels: count for labels, count in found["hal0_slot_restarts_total"].items() if count}


async def disturbed(scene: Scene, *names: str) -> None:
    """Let hal0 notice what has happened to slots, and let it act."""
    scene.look(*names)
    await scene.pass_(30)


async def test_every_restart_is_counted_by_its_reason(scene: Scene) -> None:
    scene.declare(slots("crash", "failed", "drift", "update", "calm"))
    async with served(scene) as (client, _):
        await scene.settle()
        found = await scraped(client)
        assert len(found["hal0_slot_restarts_total"]) == 5 * 5
        assert restarts(found) == {}
        scene.host.restart("crash")
        scene.host.die("failed")
        scene.host.stop("drift")
        scene.declare(slots("crash", "failed", "drift", "calm"), slot("update", context_size=64))
        await scene.pass_(30)
        assert restarts(await scraped(client)) == {(name, name): 1 for name in ("crash", "failed", "drift", "update")}


async def test_room_is_told_of_and_evictions_are_counted_by_their_reason(scene: Scene) -> None:
    host = {"host.yaml": "kind: Host\npools: {ram: 1000}\n"}
    scene.declare(MODEL, host, *(slot(name, run="on-demand", claim=600) for name in "ab"))
    async with served(scene) as (client, _):
        await scene.settle()
        for name in "ab":
            scene.demand(name)
            await scene.until(lambda name=name: scene.slot(name).state is SlotState.READY)  # type: ignore[misc]
            scene.reconciler.demands.end(name, served=False)
        found = await scraped(client)
    assert found["hal0_pool_bytes"] == {("total", "ram"): 1000, ("claimed", "ram"): 600}
    assert found["hal0_slot_claim_bytes"] == {("a", "stated"): 600, ("b", "stated"): 600}
    assert {labels: n for labels, n in found["hal0_evictions_total"].items() if n} == {("memory", "a"): 1}
    assert len(found["hal0_evictions_total"]) == 2 * 3


async def test_restarts_only_grow_when_the_service_manager_counts_anew(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    async with served(scene) as (client, _):
        for _ in range(3):
            scene.host.restart("chat")
        await disturbed(scene, "chat")
        assert restarts(await scraped(client)) == {("crash", "chat"): 3}
        scene.host.stop("chat")
        await disturbed(scene, "chat")
        assert restarts(await scraped(client)) == {("crash", "chat"): 3, ("drift", "chat"): 1}
        scene.host.restart("chat")
        await disturbed(scene, "chat")
        assert restarts(await scraped(client)) == {("crash", "chat"): 4, ("drift", "chat"): 1}


async def test_a_slot_that_cant_be_seen_for_a_while_is_not_counted_twice(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    async with served(scene) as (client, _):
        scene.host.restart("chat")
        await disturbed(scene, "chat")
        scene.runtime.blind = "the bus is gone"
        await disturbed(scene, "chat")
        scene.runtime.blind = ""
        scene.host.restart("chat")
        await disturbed(scene, "chat")
        assert restarts(await scraped(client)) == {("crash", "chat"): 2}


async def test_what_was_restarted_before_hal0_began_is_not_its_to_count(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    scene.host.restart("chat")
    scene.restart()
    await scene.settle()
    async with served(scene) as (client, _):
        assert restarts(await scraped(client)) == {}
        scene.host.restart("chat")
        await disturbed(scene, "chat")
        assert restarts(await scraped(client)) == {("crash", "chat"): 1}


async def test_loads_on_demand_are_no_restarts(scene: Scene) -> None:
    scene.declare(MODEL, slot("chat", run="on-demand", idle_timeout="60s"))
    await scene.settle()
    async with served(scene) as (client, _):
        for count in (1, 2):
            scene.demand("chat")
            await scene.settle()
            scene.reconciler.demands.end("chat", served=False)
            assert scene.host.starts["chat"] == count
            await scene.pass_(90)
            assert scene.states() == {"chat": SlotState.OFFLINE}
        assert restarts(await scraped(client)) == {}


async def test_a_start_that_fails_is_no_restart(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    async with served(scene) as (client, _):
        scene.runtime.faults["start chat"] = StepFailed("no such device")
        scene.host.stop("chat")
        await disturbed(scene, "chat")
        assert restarts(await scraped(client)) == {}
        scene.runtime.faults.clear()
        await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
        assert restarts(await scraped(client)) == {("drift", "chat"): 1}


async def test_a_slot_that_comes_back_is_counted_on(scene: Scene) -> None:
    scene.declare(slots("chat", "embed", "rerank"))
    await scene.settle()
    async with served(scene) as (client, _):
        scene.host.restart("chat")
        await disturbed(scene, "chat")
        scene.declare(slots("embed", "rerank"))
        await scene.settle()
        assert {labels[1] for labels in (await scraped(client))["hal0_slot_restarts_total"]} == {"embed", "rerank"}
        scene.declare(slots("chat", "embed", "rerank"))
        await scene.settle()
        assert restarts(await scraped(client)) == {("crash", "chat"): 1}


async def test_passes_are_counted_by_how_they_ended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(scene) as (client, _):
        assert (await scraped(client))["hal0_reconcile_runs_total"] == {("success",): 0, ("error",): 0}
        scene.declare(slots("chat"))
        await scene.settle()
        made = scene.passes
        assert (await scraped(client))["hal0_reconcile_runs_total"] == {("success",): made, ("error",): 0}
        monkeypatch.setattr(scene.manifests, "load", broken)
        with pytest.raises(OSError, match="the disk is gone"):
            await scene.make_pass()
        found = await scraped(client)
        assert found["hal0_reconcile_runs_total"] == {("success",): made, ("error",): 1}
        assert found["hal0_reconcile_duration_seconds_count"] == {(): made + 1}


async def test_a_plan_that_is_only_shown_is_no_pass(scene: Scene) -> None:
    scene.declare(slots("chat"))
    async with served(scene) as (client, _):
        await scene.plan()
        found = await scraped(client)
    assert found["hal0_reconcile_runs_total"] == {("success",): 0, ("error",): 0}
    assert "hal0_last_apply_timestamp_seconds" not in found


async def test_a_pass_is_as_long_as_its_look_at_the_host(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    async with served(scene) as (client, _):
        before = await scraped(client)
        monkeypatch.setattr(scene.reconciler.observer, "prober", SlowProber(clock=scene.clock))
        await scene.make_pass()
        found = await scraped(client)
    buckets, earlier = (one["hal0_reconcile_duration_seconds_bucket"] for one in (found, before))
    assert found["hal0_reconcile_duration_seconds_sum"] == {(): 2.0}
    assert buckets[("1.0",)] == earlier[("1.0",)] == earlier[("2.5",)]
    assert buckets[("2.5",)] == buckets[("+Inf",)] == earlier[("2.5",)] + 1


async def test_the_last_apply_is_when_changes_were_carried_out_in_full(scene: Scene) -> None:
    async with served(scene) as (client, _):

        async def last() -> dict[tuple[str, ...], float] | None:
            return (await scraped(client)).get("hal0_last_apply_timestamp_seconds")

        scene.runtime.faults["start embed"] = StepFailed("no such device")
        scene.declare(slots("chat", "embed"))
        await scene.settle()
        assert scene.host.starts == {"chat": 1}
        assert await last() is None
        scene.runtime.faults.clear()
        await scene.until(lambda: scene.host.starts == {"chat": 1, "embed": 1})
        applied = scene.clock.wall()
        assert await last() == {(): applied}
        await scene.pass_(600)
        assert await last() == {(): applied}


async def test_the_last_apply_outlives_the_daemon(scene: Scene) -> None:
    scene.declare(slots("chat"))
    await scene.settle()
    applied = scene.clock.wall()
    scene.restart()
    await scene.pass_(60)
    async with served(scene) as (client, _):
        assert (await scraped(client))["hal0_last_apply_timestamp_seconds"] == {(): applied}
