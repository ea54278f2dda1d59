"""The acts about the machine, over a host in memory: what it has, whether a model fits, what a new slot runs on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FAKE_CPU, NO_GPU
from headers import gguf
from scenes import MODEL, Scene, slot

from hal0.core.edit import Scalar
from hal0.core.facts import Known
from hal0.core.hardware import Gpu, GpuMemory, Platform, Vendor
from hal0.core.pools import Pool
from hal0.errors import StepFailed, UsageError
from hal0.host.manifests import ManifestRoot
from hal0.loop import authoring, hardware
from hal0.loop.fit import Fitting, model_fit

MIB, GIB = 2**20, 2**30
RADEON = Gpu(Vendor.AMD, "Radeon", "amdgpu", node="/dev/dri/renderD128", gid=44, memory=Known(GpuMemory(16 * GIB, GIB)))
HOST = {"host.yaml": "kind: Host\npools: {gpu: 8Gi}\n"}


@pytest.fixture
def radeon(scene: Scene) -> Scene:
    """A machine with a GPU, and a model of some hundred megabytes by its header."""
    scene.hardware.last = replace(NO_GPU, gpus=(RADEON,))
    scene.hardware.table |= {
        "ram": Known(Pool("ram", 8 * GIB, GIB, stated=False)),
        "gpu": Known(Pool("gpu", 16 * GIB, GIB, stated=False)),
    }
    (scene.folder / "models/m.gguf").write_bytes(gguf())
    return scene


async def told(
    scene: Scene,
    model: str = "m",
    *,
    context_size: int | None = None,
    device: str | None = None,
    profile: str | None = None,
) -> Any:
    return await model_fit(scene.reconciler, Fitting(model, context_size, device, profile))


async def test_a_probe_tells_the_machine_with_the_pools_as_the_host_manifest_has_them(radeon: Scene) -> None:
    radeon.declare(MODEL, HOST)
    found = await hardware.probe(radeon.reconciler)
    assert found["default"] == {"device": "gpu-vulkan", "why": "Radeon at /dev/dri/renderD128"}
    assert [(pool["name"], pool["for_slots_bytes"], pool["stated"]) for pool in found["pools"]] == [
        ("ram", int(8 * GIB * 0.9), False),
        ("gpu", 8 * GIB, True),
    ]
    assert found["model_disk"]["path"] == str(radeon.folder / "models")


async def test_a_model_is_fitted_where_a_new_slot_would_be_and_nothing_is_written(radeon: Scene) -> None:
    radeon.declare(MODEL, slot("chat"))
    await radeon.settle()
    files, plan = dict(radeon.host.files), await radeon.plan()
    found = await told(radeon, context_size=2048)
    assert (found["model"], found["device"], found["pool"], found["fits"]) == ("m", "gpu-vulkan", "gpu", "now")
    assert found["device_why"] == "Radeon at /dev/dri/renderD128"
    assert (found["claim"]["source"], found["context_size"]) == ("estimated", 2048)
    assert "2048 tokens" in found["claim"]["how"]
    assert found["room_bytes"] == int(16 * GIB * 0.95)
    assert found["free_bytes"] == int(16 * GIB * 0.95) - GIB
    assert (found["largest_context"], found["largest_context_now"]) == (1024, 1024)
    assert (radeon.host.files, await radeon.plan()) == (files, plan)
    assert set(radeon.reconciler.desired.slots) == {"chat"}


async def test_what_slots_claim_of_a_stated_pool_is_not_free_for_a_model(radeon: Scene) -> None:
    radeon.declare(MODEL, HOST, slot("chat", device="gpu-vulkan", claim="8Gi"))
    await radeon.until(lambda: radeon.slot("chat").is_ready)
    found = await told(radeon)
    assert (found["fits"], found["room_bytes"], found["free_bytes"]) == ("later", 8 * GIB, 0)
    assert found["largest_context_now"] is None
    assert found["largest_context"] > 0


async def test_a_model_that_a_device_has_no_pool_for_or_no_file_is_not_known(radeon: Scene) -> None:
    radeon.declare(MODEL, {"n.yaml": "kind: Model\nname: n\npath: n.gguf\n"})
    await radeon.settle()
    found = await told(radeon, "n", device="cpu")
    assert (found["fits"], found["pool"], found["device_why"]) == ("unknown", "ram", "as asked")
    assert "n.gguf: No such file" in found["why"]
    del radeon.hardware.table["gpu"]
    assert "no memory pool of its device" in (await told(radeon))["why"]


async def test_what_cant_be_fitted_is_refused_with_what_is_there(radeon: Scene) -> None:
    radeon.declare(MODEL)
    with pytest.raises(UsageError, match="no Model 'mm'") as refused:
        await told(radeon, "mm")
    assert "'m'" in refused.value.hint
    with pytest.raises(UsageError, match="'gpa' is not one of cpu"):
        await told(radeon, device="gpa")


async def test_of_a_model_that_is_not_here_its_source_says_how_large_it_is_at_least(radeon: Scene) -> None:
    text = "kind: Model\nname: far\nmmproj: mmproj.gguf\nsource: {repo: org/repo, file: far-00001-of-00002.gguf}\n"
    radeon.declare(MODEL, {"far.yaml": text})
    await radeon.settle()
    radeon.fetcher.said = 3 * GIB
    found = await told(radeon, "far")
    assert (found["fits"], found["claim"]["bytes"], found["at_least"]) == ("now", 9 * GIB, True)
    assert "not here yet" in found["claim"]["how"]
    assert found["largest_context"] is None
    radeon.fetcher.said = 6 * GIB
    assert (await told(radeon, "far"))["fits"] == "never"
    assert (await told(radeon))["at_least"] is False


@pytest.mark.parametrize(
    ("said", "why"),
    [(None, "its source does not say how large it is"), (StepFailed("hub has no file"), "can't be asked: hub has no")],
)
async def test_a_source_that_does_not_tell_leaves_it_open(radeon: Scene, said: StepFailed | None, why: str) -> None:
    radeon.declare({"far.yaml": "kind: Model\nname: far\nsource: {repo: org/repo, file: far.gguf}\n"})
    radeon.fetcher.said = said
    found = await told(radeon, "far")
    assert (found["fits"], found["claim"]["bytes"], found["at_least"]) == ("unknown", None, False)
    assert why in found["why"]


async def test_a_found_model_is_fitted_too_and_stays_undeclared(radeon: Scene) -> None:
    (radeon.folder / "models/Found-Q8_0.gguf").write_bytes(gguf())
    radeon.declare(MODEL)
    await radeon.settle()
    found = await told(radeon, "found-q8_0", context_size=512)
    assert (found["model"], found["fits"], found["claim"]["source"]) == ("found-q8_0", "now", "estimated")
    assert "found-q8_0" not in radeon.reconciler.desired.models


async def test_a_model_is_fitted_as_a_slot_of_a_profile_would_be(radeon: Scene) -> None:
    layers = "kind: Profile\nname: few\nextends: llama-server-vulkan\nargs: [-ngl, 0]\n"
    radeon.declare(MODEL, {"few.yaml": layers})
    whole, few = await told(radeon, device="gpu-vulkan"), await told(radeon, device="gpu-vulkan", profile="few")
    assert few["claim"]["bytes"] < whole["claim"]["bytes"]
    assert (await told(radeon, profile="few"))["device"] == "cpu"
    with pytest.raises(UsageError, match="no Profile 'fwe'"):
        await told(radeon, profile="fwe")


async def test_a_model_is_fitted_although_all_ports_are_given_away(radeon: Scene) -> None:
    radeon.declare(MODEL, {"host.yaml": "kind: Host\nslot_ports: 8081-8081\n"}, slot("fit-0"), slot("x", port=65535))
    assert (await told(radeon))["fits"] == "now"


async def created(scene: Scene, **keys: Scalar) -> tuple[str, Any]:
    folder = scene.folder / "manifests"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL["model.yaml"])
    scene.reconciler.source.root = ManifestRoot(folder)
    async with asyncio.timeout(20), scene.driven():
        found = await authoring.create(scene.reconciler, "new", {"model": "m", **keys}, who="eve")
    return (Path(folder) / "new.toml").read_text(), found


async def test_a_new_slot_runs_on_what_is_best_here(radeon: Scene) -> None:
    text, found = await created(radeon)
    assert 'device = "gpu-vulkan"\n' in text
    assert found["default"] == {"device": "gpu-vulkan", "why": "Radeon at /dev/dri/renderD128"}


@pytest.mark.parametrize("keys", [{"device": "cpu"}, {"profile": "llama-server-cpu"}])
async def test_a_device_or_a_profile_that_is_named_stays(radeon: Scene, keys: dict[str, Scalar]) -> None:
    text, found = await created(radeon, **keys)
    assert "gpu" not in text
    assert found["default"] is None


async def test_where_the_cpu_is_best_the_manifest_does_not_say_so(scene: Scene) -> None:
    scene.hardware.platform = Known(Platform(FAKE_CPU))
    text, found = await created(scene)
    assert "device" not in text
    assert found["default"] == {"device": "cpu", "why": "no GPU is to be seen"}
