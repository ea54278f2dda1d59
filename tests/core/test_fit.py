from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import desired, slots

from hal0.core.backend import Choice, default_device
from hal0.core.claims import estimate
from hal0.core.facts import Known, Unknown
from hal0.core.fit import Fit, Fits, fit, largest_context
from hal0.core.hardware import NOT_SAMPLED, Cpu, Gpu, Machine, Platform, Vendor, joined, pool_names
from hal0.core.modelfile import ModelFacts
from hal0.core.pools import Claim, ClaimSource, Pool, capacity
from hal0.core.schema import Device

GIB = 2**30
SPEC = desired(slots("a")).slots["a"].spec
FACTS = ModelFacts("llama", 98362432, 30, (3,) * 30, 64, 64, 8192)


def claim(size: int | None) -> Claim:
    return Claim(size, ClaimSource.STATED, "why it is not known")


def gpu(used: int | None = 0, *, stated: bool = True) -> Pool:
    return Pool("gpu", 16 * GIB, used, stated=stated)


@pytest.mark.parametrize(
    ("size", "pool", "held", "told"),
    [
        (10 * GIB, gpu(), 0, Fit(Fits.NOW, "6.0 GiB of pool gpu stays free", 16 * GIB, 16 * GIB)),
        (16 * GIB, gpu(), 0, Fit(Fits.NOW, "0 B of pool gpu stays free", 16 * GIB, 16 * GIB)),
        (10 * GIB, gpu(), 8 * GIB, Fit(Fits.LATER, "2.0 GiB of pool gpu must get free first", 16 * GIB, 8 * GIB)),
        (10 * GIB, gpu(9 * GIB), 0, Fit(Fits.LATER, "3.0 GiB of pool gpu must get free first", 16 * GIB, 7 * GIB)),
        (10 * GIB, gpu(None), 2 * GIB, Fit(Fits.NOW, "4.0 GiB of pool gpu stays free", 16 * GIB, 14 * GIB)),
        (17 * GIB, gpu(), 0, Fit(Fits.NEVER, "pool gpu has 1.0 GiB too little", 16 * GIB, 16 * GIB)),
        (GIB, gpu(), 99 * GIB, Fit(Fits.LATER, "1.0 GiB of pool gpu must get free first", 16 * GIB, 0)),
        (None, gpu(), 0, Fit(Fits.UNKNOWN, "why it is not known", 16 * GIB, 16 * GIB)),
    ],
)
def test_a_claim_fits_now_later_or_never(size: int | None, pool: Pool, held: int, told: Fit) -> None:
    assert fit(claim(size), pool, held) == told


def test_ram_that_nobody_stated_is_only_asked_what_is_free() -> None:
    ram = Pool("ram", 10 * GIB, 4 * GIB, stated=False)
    assert fit(claim(5 * GIB), ram, held=9 * GIB) == Fit(
        Fits.NOW, "0 B of pool ram stays free", capacity(ram), capacity(ram) - 4 * GIB
    )


def test_without_a_pool_nothing_is_known() -> None:
    found = fit(claim(GIB), None, 0)
    assert (found.fits, found.room, found.free) == (Fits.UNKNOWN, None, None)


@given(st.integers(0, 2**31))
def test_the_largest_context_fits_and_the_next_one_does_not(room: int) -> None:
    found = largest_context(SPEC, FACTS, room)

    def takes(tokens: int) -> int:
        return estimate(replace(SPEC, context_size=tokens), FACTS).bytes or 0

    if found is None:
        assert takes(256) > room
    else:
        assert found <= FACTS.context_length
        assert takes(found) <= room
        assert found == FACTS.context_length or takes(found + 256) > room


def test_a_context_among_the_arguments_leaves_no_choice() -> None:
    assert largest_context(replace(SPEC, args=("-c", "512")), FACTS, 2**40) is None


def on(*gpus: Gpu) -> Machine:
    cpu = Cpu("", "x86_64", 1, 1, 1, ())
    return Machine(Known(Platform(cpu)), replace(NOT_SAMPLED, gpus=gpus), Unknown("no disk"))


ARC = Gpu(Vendor.INTEL, "Arc", "xe", node="/dev/dri/renderD128", pci="0000:03:00.0")
RTX = Gpu(Vendor.NVIDIA, "RTX", "nvidia", pci="0000:01:00.0", memory=Unknown("late"))


def test_a_driver_that_has_never_answered_is_not_read_as_no_gpu() -> None:
    silent = Gpu(Vendor.UNKNOWN, "GPU", memory=Unknown("no answer in 2 s"))
    why = "a GPU may be there (no answer in 2 s)"
    assert default_device(on(silent), "systemd") == Choice(Device.CPU, why)
    assert pool_names([silent]) == ["gpu"]


def test_the_first_gpu_that_can_be_used_is_the_default() -> None:
    assert default_device(on(RTX, ARC), "systemd") == Choice(Device.GPU_VULKAN, "Arc at /dev/dri/renderD128")
    assert default_device(on(replace(ARC, node="")), "systemd").why == "Arc has no render node below /dev/dri here"


def test_a_machine_of_which_nothing_is_known_has_the_cpu() -> None:
    unknown = replace(on(ARC), platform=Unknown("no answer"))
    why = "nothing is known of this machine: no answer"
    assert default_device(unknown, "systemd") == Choice(Device.CPU, why)


def test_every_gpu_is_told_once() -> None:
    card = replace(RTX, name="NVIDIA GPU 10de:1", node="/dev/dri/renderD129", gid=44, ids="10de:1", memory=None)
    unmatched = replace(card, pci="0000:09:00.0")
    assert joined(Known((RTX,)), [ARC, card, unmatched]) == (
        replace(RTX, node="/dev/dri/renderD129", gid=44, ids="10de:1"),
        unmatched,
        ARC,
    )
    late = Unknown("no answer")
    assert joined(late, [ARC, card]) == (replace(card, memory=late), ARC)
    assert joined(late, [ARC]) == (Gpu(Vendor.NVIDIA, "NVIDIA GPU", "nvidia", memory=late), ARC)
