"""A container that runs an engine, or an engine of the host, as a Model, a Profile and a Slot."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from hal0.core.importing.containers import Container
from hal0.core.importing.draft import Keys
from hal0.core.importing.engines import (
    KNOWN,
    Command,
    Known,
    Says,
    by_image,
    by_program,
    from_env,
    read,
    without_shell,
)
from hal0.core.importing.models import declare_model
from hal0.core.importing.places import moved
from hal0.core.importing.profiles import Runs, declare_profile
from hal0.core.importing.words import holds_secret, whole
from hal0.core.schema import Device

_BY_IMAGE = (("rocm", Device.GPU_ROCM), ("cuda", Device.GPU_CUDA), ("vulkan", Device.GPU_VULKAN))
_ALL_LAYERS = 99  # so many are meant to be all of them


def declare(box: Container) -> str:
    """Add the manifests of a container that runs an engine; return its slot's name, empty where it is none."""
    kind, words = _engine(box)
    if kind is None:
        return ""
    flags, box.env = from_env(box.env) if kind.is_llama else ([], box.env)
    command = read(kind, [*words, *flags])
    for what, why in command.lost:
        box.lose(what, why)
    model, remains = declare_model(box, command)
    if not model:
        return ""
    command, device = replace(command, rest=(*command.rest, *remains)), _device(box, kind, command)
    runs = declare_profile(box, kind, command, device)
    if runs is None:
        return ""
    names = [*box.aliases, *command.says.get(Says.NAME, "").split(",")]
    return box.draft.slot(box.where, box.name, _slot(box, command, model, device, runs), names)


def _engine(box: Container) -> tuple[Known | None, list[str]]:
    """Return the engine, and its words without the program. What starts the program becomes the entrypoint."""
    if holds_secret("", box.image):
        box.leave_out("its image", "looks like a secret")
        return None, []
    words = without_shell([*box.entrypoint, *box.words])
    if words is None:
        box.leave_out("its command", "is a script of a shell")
        return None, []
    by_word = by_program(words[0]) if words and not words[0].startswith("-") else None
    if by_word is None:
        by_name = by_image(box.image)
        if by_name is None:
            box.leave_out(box.image or " ".join(words[:1]) or "cmd", f"is no engine that hal0 can run ({KNOWN})")
        return by_name, words
    if box.image:
        box.profile["entrypoint"] = words[0]
    elif by_word.is_llama and by_word.name != words[0]:
        box.lose(words[0], "hal0 runs the engine of the profile's image")
    return by_word, words[1:]


def _slot(box: Container, command: Command, model: str, device: Device, runs: Runs) -> Keys:
    says = command.says
    keys: Keys = {"type": command.type.value, "model": model, "device": device.value, **box.slot}
    keys |= {"profile": runs.profile} if runs.profile else {}
    keys |= {"context_size": size} if (size := whole(says.get(Says.CONTEXT, ""))) else {}
    keys |= {"port": port} if (port := next((outer for outer, _ in box.ports if outer), None)) else {}
    keys |= {"env": {name: moved(value, box.mounts) for name, value in box.env.items()}}
    keys["args"] = [*_own_flags(command, device, runs), *(moved(word, box.mounts) for word in command.rest)]
    for word in command.rest if not box.image else ():
        if posixpath.isabs(word):
            box.lose(f"the file {word}", "is not in the container: a Profile with a mount shows it to the engine")
    return keys


def _own_flags(command: Command, device: Device, runs: Runs) -> list[str]:
    """Return flags that hal0 would say in another way: for a model's parts, a size in words, some layers."""
    words = _layers(command.says.get(Says.LAYERS, ""), device, runs)
    if command.model_flag == "--diffusion-model":
        words += [command.model_flag, "{model}"]
    size = command.says.get(Says.CONTEXT, "")
    return [*words, *(["--max-model-len", size] if size and whole(size) is None else [])]


def _layers(number: str, device: Device, runs: Runs) -> list[str]:
    """Return the flag of the layers on the GPU, unless the seed profile says the same."""
    count = whole(number)
    all_of_them = count is None or count >= _ALL_LAYERS
    if not number or (runs.seed and (device is Device.CPU or all_of_them)):
        return []
    return ["--n-gpu-layers", number]


def _device(box: Container, kind: Known, command: Command) -> Device:
    """Return what the engine computes on, as far as its devices, its image, its environment and its flags say."""
    layers = command.says.get(Says.LAYERS, "")
    if layers == "0":
        return Device.CPU
    if any(device.startswith("nvidia.com/") for device in box.devices) or "CUDA_VISIBLE_DEVICES" in box.env:
        return Device.GPU_CUDA
    if any(device.startswith("/dev/kfd") for device in box.devices) or "HIP_VISIBLE_DEVICES" in box.env:
        return Device.GPU_ROCM
    image = box.image.lower()
    if named := next((device for word, device in _BY_IMAGE if word in image), None):
        return named
    if any(device.startswith("/dev/dri") for device in box.devices):
        return Device.GPU_VULKAN
    if box.image:
        return Device.CPU
    return box.given.gpu if layers else kind.gpu
