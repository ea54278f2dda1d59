from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import desired, slots

from hal0.core.claims import claim_key, claim_of, estimate
from hal0.core.facts import Known, Unknown
from hal0.core.modelfile import ModelFacts, ModelFile
from hal0.core.pools import ClaimSource, Pool, pool_of
from hal0.core.quantity import show_size
from hal0.core.schema import Device, Engine
from hal0.core.spec import Placing, SlotSpec

MIB = 2**20
SPEC = desired(slots("a")).slots["a"].spec
GPU = replace(SPEC, device=Device.GPU_CUDA)
SMOLLM2 = ModelFacts("llama", 98362432, 30, (3,) * 30, 64, 64, 8192)
OVERHEAD = 98362432 // 10 + 64 * MIB
ON_DISK = ModelFile(Known(SMOLLM2.size), Known(SMOLLM2))


def told(*args: str, context: int | None = None, spec: SlotSpec = SPEC) -> SlotSpec:
    return replace(spec, context_size=context, args=args)


@pytest.mark.parametrize(
    ("spec", "cache"),
    [
        (told(context=2048), 45 * MIB),
        (told(context=8192), 180 * MIB),
        (told(), 180 * MIB),
        (told("--ctx-size", "2048", context=8192), 45 * MIB),
        (told("-c", "8192", "--ctx-size=2048"), 45 * MIB),
        (told("-c", "0", context=2048), 180 * MIB),
        (told("-c", "-5", context=2048), 180 * MIB),
        (told("-c", "many", context=2048), 45 * MIB),
        (told("--parallel", "4", context=2048), 45 * MIB),
        (told("-ctk", "q8_0", "-ctv", "q8_0", context=2048), 45 * MIB * 34 // 64),
        (told("--cache-type-v", "q4_0", context=2048), 45 * MIB * (64 + 18) // 128),
        (told("-ctk", "of_tomorrow", context=2048), 45 * MIB),
        (told("--ctx-size", context=2048), 45 * MIB),
    ],
)
def test_the_cache_is_that_of_the_context_the_engine_is_started_with(spec: SlotSpec, cache: int) -> None:
    assert estimate(spec, SMOLLM2).bytes == SMOLLM2.size + cache + OVERHEAD


@pytest.mark.parametrize(
    ("args", "layers", "cached"),
    [
        ((), 30, 30),
        (("--n-gpu-layers", "999"), 30, 30),
        (("-ngl", "auto"), 30, 30),
        (("-ngl", "-1"), 30, 30),
        (("--gpu-layers", "12"), 12, 12),
        (("--gpu-layers", "999", "-ngl", "12"), 12, 12),
        (("-ngl", "12", "--no-kv-offload"), 12, 0),
        (("-ngl", "0"), 0, 0),
    ],
)
def test_a_gpu_holds_the_layers_that_it_is_given(args: tuple[str, ...], layers: int, cached: int) -> None:
    found = estimate(told(*args, context=2048, spec=GPU), SMOLLM2)
    assert found.bytes == SMOLLM2.size * layers // 30 + 45 * MIB * cached // 30 + OVERHEAD
    assert ("more in ram" in found.how) == (layers < 30)


def test_layers_on_the_cpu_are_all_in_ram_whatever_the_profile_says_of_gpus() -> None:
    plain, spoken = (estimate(told(*args, context=512), SMOLLM2) for args in ((), ("-ngl", "3")))
    assert plain == spoken


def test_layers_that_keep_nothing_count_for_nothing_and_the_last_ones_go_to_the_gpu() -> None:
    mixed = replace(SMOLLM2, layers=4, kv_heads=(0, 0, 8, 4), size=4000)
    found = estimate(told("-ngl", "1", context=32, spec=GPU), mixed)
    assert found.bytes == 1000 + 4 * 256 * 32 + 400 + 64 * MIB


def test_the_arithmetic_is_told() -> None:
    assert estimate(told(context=2048), SMOLLM2).how == (
        "weights 93.8 MiB + KV cache 45.0 MiB (2048 tokens, f16) + overhead 73.4 MiB = 212.2 MiB"
    )
    split = estimate(told("-ngl", "15", "-ctk", "q8_0", context=2048, spec=GPU), SMOLLM2)
    assert split.how == (
        "weights 46.9 MiB + KV cache 17.2 MiB (2048 tokens, q8_0/f16) + overhead 73.4 MiB = 137.5 MiB;"
        " 15 of 30 layers are on the gpu, and 64.1 MiB more in ram"
    )


def test_the_manifest_knows_best_then_the_measure_then_the_header_then_the_file() -> None:
    stated = replace(SPEC, placing=Placing(claim=5 * MIB))
    headless = ModelFile(Known(7 * MIB), Unknown("m.gguf: not a GGUF file"))
    gone = ModelFile(Unknown("m.gguf: No such file"), Unknown("m.gguf: No such file"))
    cases = [
        (claim_of(stated, ON_DISK, 9 * MIB), ClaimSource.STATED, 5 * MIB, "5.0 MiB, as its manifest says"),
        (claim_of(SPEC, ON_DISK, 9 * MIB), ClaimSource.MEASURED, 9 * MIB, "9.0 MiB, the most that its last runs held"),
        (claim_of(SPEC, gone, 9 * MIB), ClaimSource.MEASURED, 9 * MIB, "9.0 MiB, the most that its last runs held"),
        (
            claim_of(SPEC, headless, None),
            ClaimSource.FILE,
            7 * MIB,
            "7.0 MiB, the size of its model's file (m.gguf: not a GGUF file)",
        ),
        (claim_of(SPEC, gone, None), ClaimSource.UNKNOWN, None, "m.gguf: No such file"),
    ]
    for claim, source, size, how in cases:
        assert (claim.source, claim.bytes, claim.how) == (source, size, how)
    assert claim_of(SPEC, ON_DISK, None) == estimate(SPEC, SMOLLM2)


def test_what_another_engine_makes_of_a_model_is_not_estimated() -> None:
    claim = claim_of(replace(SPEC, engine=Engine.CUSTOM), ON_DISK, None)
    assert claim.source is ClaimSource.FILE
    assert claim.how == "93.8 MiB, the size of its model's file (the engine is custom)"


def test_a_measure_counts_for_the_same_spec_elsewhere_and_for_no_other() -> None:
    key = claim_key(SPEC, 1)
    elsewhere = replace(SPEC, name="b", port=9999, source="b.yaml:1", aliases=("x",), placing=Placing(priority=3))
    assert claim_key(elsewhere, 1) == key
    others = [
        replace(SPEC, context_size=77),
        replace(SPEC, args=("-ctk", "q8_0")),
        replace(SPEC, env={"A": "1"}),
        replace(SPEC, image="other:1"),
        replace(SPEC, device=Device.GPU_CUDA),
        replace(SPEC, model_path="/models/other.gguf"),
    ]
    assert len({key, claim_key(SPEC, 2), claim_key(SPEC, None), *(claim_key(spec, 1) for spec in others)}) == 9


@pytest.mark.parametrize(
    ("device", "stated", "names", "pool"),
    [
        (Device.CPU, "", ["ram", "gpu"], "ram"),
        (Device.CPU, "", [], ""),
        (Device.NPU, "", ["ram"], "ram"),
        (Device.NPU, "", ["ram", "npu"], "npu"),
        (Device.GPU_ROCM, "", ["ram", "gpu"], "gpu"),
        (Device.GPU_ROCM, "", ["gpu1", "gpu0", "ram"], "gpu0"),
        (Device.GPU_ROCM, "gpu1", ["gpu1", "gpu0", "ram"], "gpu1"),
        (Device.GPU_ROCM, "gone", ["gpu", "ram"], ""),
        (Device.GPU_ROCM, "", ["ram"], ""),
    ],
)
def test_a_slot_takes_from_the_pool_of_its_device(device: Device, stated: str, names: list[str], pool: str) -> None:
    pools = {name: Pool(name, 1, None, stated=False) for name in names}
    assert pool_of(replace(SPEC, device=device, placing=Placing(pool=stated)), pools) == pool


def facts() -> st.SearchStrategy[ModelFacts]:
    return st.integers(1, 64).flatmap(
        lambda layers: st.builds(
            ModelFacts,
            architecture=st.just("llama"),
            size=st.integers(1, 2**40),
            layers=st.just(layers),
            kv_heads=st.tuples(*[st.integers(0, 128)] * layers),
            head_k=st.integers(1, 512),
            head_v=st.integers(1, 512),
            context_length=st.integers(1, 2**20),
        )
    )


def claimed(spec: SlotSpec, facts: ModelFacts) -> int:
    found = estimate(spec, facts).bytes
    assert found is not None
    return found


@given(facts(), st.integers(1, 2**18), st.integers(1, 2**18))
def test_a_longer_context_never_claims_less(facts: ModelFacts, tokens: int, more: int) -> None:
    assert claimed(told(context=tokens), facts) <= claimed(told(context=tokens + more), facts)


@given(facts(), st.integers(0, 80), st.integers(0, 80))
def test_more_layers_on_the_gpu_never_claim_less_of_it(facts: ModelFacts, some: int, more: int) -> None:
    fewer, further = (claimed(told("-ngl", str(count), spec=GPU), facts) for count in (some, some + more))
    assert fewer <= further <= claimed(told(spec=SPEC), facts)


@given(facts(), st.lists(st.sampled_from(["-ctk", "q4_0", "-c", "-ngl", "7", "--ctx-size=9", "", "x"])))
def test_any_arguments_claim_at_least_the_overhead_and_the_sum_is_told(facts: ModelFacts, args: list[str]) -> None:
    for spec in (SPEC, GPU):
        found = claimed(told(*args, spec=spec), facts)
        assert found >= 64 * MIB
        assert f"= {show_size(found)}" in estimate(told(*args, spec=spec), facts).how
