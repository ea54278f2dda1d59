from __future__ import annotations

import pytest
from worlds import MODEL, desired, slots

from hal0.core.exclusion import exclusion
from hal0.core.facts import Known
from hal0.core.pools import Pool, capacity, is_shared_out, pool_of, pools_of
from hal0.core.schedule import Ground
from hal0.core.spec import HostSpec, Placing, PoolSpec, SlotSpec

GIB = 2**30


def spec(name: str = "chat", /, **keys: object) -> SlotSpec:
    found = desired(slots(name, profile="llama-server-cpu", **keys))
    assert found.problems == ()
    return found.slots[name].spec


def host(text: str) -> HostSpec:
    return desired(f"kind: Host\n{text}\n").host


def test_the_keys_of_placing_are_in_the_spec() -> None:
    keys = {"priority": -3, "pinned": "true", "exclusive_with": "[b]", "claim": "1Gi", "pool": "gpu1"}
    found = desired(slots("b") + slots("a", **keys).removeprefix(MODEL))
    assert found.slots["a"].spec.placing == Placing(-3, pinned=True, exclusive_with=("b",), claim=GIB, pool="gpu1")


def test_a_pool_is_a_size_or_a_size_with_a_reserve() -> None:
    assert host("pools: {ram: 24Gi, gpu: {size: 16Gi, reserve: 1Gi}}").pools == {
        "ram": PoolSpec(24 * GIB),
        "gpu": PoolSpec(16 * GIB, GIB),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Host\npools: {ram: lots}\n", "pools.ram.size: is not a size"),
        ("kind: Host\npools: {ram: {size: 1Gi, reserve: 1Gi}}\n", "leaves nothing of the pool for slots"),
        (slots("a", exclusive_with="[b]"), "exclusive_with[0]: no Slot 'b'"),
        (slots("a", exclusive_with="[a]"), "a slot can't exclude itself"),
        (slots("a", priority=101), "priority: "),
    ],
)
def test_what_is_wrong_with_them_is_said(text: str, said: str) -> None:
    assert said in str(desired(text).problems[0])


def test_a_stated_pool_has_what_its_reserve_leaves_and_a_probed_one_keeps_a_share_free() -> None:
    probed = {name: Known(Pool(name, 24 * GIB, used=0, stated=False)) for name in ("gpu", "ram")}
    found = pools_of(probed, host("pools: {gpu: {size: 16Gi, reserve: 1Gi}}"))
    assert found == probed | {"gpu": Known(Pool("gpu", 15 * GIB, used=None, stated=True))}
    assert capacity(Pool("gpu", 15 * GIB, used=None, stated=True)) == 15 * GIB
    assert [capacity(Pool(name, 1000, 0, stated=False)) for name in ("ram", "gpu")] == [900, 950]


@pytest.mark.parametrize(
    ("name", "stated", "shared"), [("ram", False, False), ("ram", True, True), ("gpu", False, True)]
)
def test_ram_that_nobody_stated_is_not_shared_out(name: str, stated: bool, shared: bool) -> None:
    assert is_shared_out(Pool(name, 1, None, stated=stated)) is shared


@pytest.mark.parametrize(
    ("keys", "pools", "pool"),
    [
        ({}, ["gpu", "ram"], "ram"),
        ({}, ["gpu"], ""),
        ({"device": "npu"}, ["npu", "ram"], "npu"),
        ({"device": "npu"}, ["ram"], "ram"),
        ({"device": "gpu-cuda"}, ["ram", "gpu1", "gpu0"], "gpu0"),
        ({"device": "gpu-cuda", "pool": "gpu1"}, ["ram", "gpu1", "gpu0"], "gpu1"),
        ({"pool": "gone"}, ["ram"], ""),
    ],
)
def test_a_slots_pool_is_its_own_or_its_devices(keys: dict[str, object], pools: list[str], pool: str) -> None:
    assert pool_of(spec(**keys), pools) == pool


@pytest.mark.parametrize(
    ("one", "other", "one_pool", "ground"),
    [
        ({"device": "npu"}, {"device": "npu"}, True, Ground.EXCLUSIVE),
        ({"device": "npu"}, {"device": "npu", "type": "embedding"}, True, None),
        ({"device": "gpu-cuda"}, {"device": "gpu-cuda", "type": "image"}, True, Ground.IMAGE),
        ({"device": "gpu-cuda"}, {"device": "gpu-cuda", "type": "image"}, False, None),
        ({"device": "gpu-cuda", "type": "image"}, {"device": "gpu-cuda", "type": "image"}, True, None),
        ({}, {"type": "image"}, True, None),
    ],
)
def test_some_slots_are_never_up_together(
    one: dict[str, object], other: dict[str, object], one_pool: bool, ground: Ground | None
) -> None:
    pair = spec("a", **one), spec("b", **other)
    for own, its in (pair, pair[::-1]):
        assert exclusion(own, its, HostSpec(), one_pool=one_pool) is ground
        shared = exclusion(own, its, HostSpec(share_gpu_with_images=True), one_pool=one_pool)
        assert shared is (None if ground is Ground.IMAGE else ground)


def test_what_one_slot_says_of_another_holds_for_both() -> None:
    found = desired(slots("b") + slots("a", exclusive_with="[b]").removeprefix(MODEL)).slots
    own, its = found["a"].spec, found["b"].spec
    assert exclusion(own, its, HostSpec(), one_pool=False) is Ground.EXCLUSIVE
    assert exclusion(its, own, HostSpec(), one_pool=False) is Ground.EXCLUSIVE
