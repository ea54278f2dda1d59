"""A container that runs an engine, whoever declared it, as a Model, a Profile and a Slot."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from hal0.core.importing.draft import Draft, Given, Keys
from hal0.core.importing.engines import (
    KNOWN,
    Command,
    EngineKind,
    Says,
    by_image,
    by_program,
    from_env,
    read,
    without_shell,
)
from hal0.core.importing.words import docker_size, holds_secret, model_id, unknown_in, whole
from hal0.core.launch import MODELS_IN_CONTAINER
from hal0.core.schema import Device, Engine, SlotType

_ELSEWHERE = "/imported"  # where a mount goes that hal0's own, of the models, would hide
_BY_IMAGE = (("rocm", Device.GPU_ROCM), ("cuda", Device.GPU_CUDA), ("vulkan", Device.GPU_VULKAN))
_ALL_LAYERS = 99  # so many are meant to be all of them


@dataclass(slots=True)
class Mount:
    """A bind: a path of the host, empty where it is a volume by name, and a path in the container."""

    source: str
    target: str
    options: str = ""


@dataclass(slots=True, kw_only=True)
class Container:
    """What a file says of one container. Its methods take values in docker's spelling and tell what they can't take.

    Without an image it is a program of the host. ``slot`` and ``profile`` are further keys of these manifests.
    """

    draft: Draft
    given: Given
    where: str
    name: str
    image: str = ""
    words: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    ports: list[tuple[int | None, int]] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    slot: Keys = field(default_factory=dict)
    profile: Keys = field(default_factory=dict)

    def lose(self, what: str, why: str) -> None:
        """Tell of something that is not carried over."""
        self.draft.lose(self.where, what, why)

    def leave_out(self, what: str, why: str) -> None:
        """Tell that nothing of the container is carried over."""
        self.draft.leave_out(self.where, what, why)

    def variable(self, text: str) -> None:
        """Take an environment variable, ``NAME=value``."""
        name, equals, value = text.partition("=")
        if holds_secret(name, value):
            self.lose(f"env {name}", "looks like a secret, and anyone may read a slot's environment")
        elif not equals:
            self.lose(f"env {name}", "its value is that of a shell: write it into `env`")
        elif unset := unknown_in(value):
            self.lose(f"env {name}", f"the variable {unset} has no value here: --set {unset}=VALUE gives it one")
        else:
            self.env[name] = value

    def mount(self, text: str) -> None:
        """Take a volume, ``source:target[:options]``."""
        source, _, rest = text.partition(":")
        target, _, options = rest.partition(":")
        if not target.startswith("/") or unknown_in(target):
            self.lose(f"volume {text}", "is not a path of the host and one of the container")
        elif source.startswith(("/", ".", "~")) and not unknown_in(source):
            self.mounts.append(Mount(self.on_host(source), posixpath.normpath(target), options))
        else:
            self.lose(f"volume {text}", "is no folder of the host: copy its files to one")
            self.mounts.append(Mount("", posixpath.normpath(target), options))

    def on_host(self, path: str) -> str:
        """Return a path of the host as an absolute one."""
        home = self.given.values.get("HOME", "/root")
        path = home + path[1:] if path == "~" or path.startswith("~/") else path
        return posixpath.normpath(posixpath.join(self.given.folder, path))

    def publish(self, text: str) -> None:
        """Take a published port, ``[address:][host:]inside[/tcp]``. ``inside`` alone is any port of the host."""
        plain = re.sub(r"^\[[^\]]*\]:", "", text.removesuffix("/tcp"))
        *outer, inside = plain.split(":")
        port = whole(inside)
        if not port:
            self.lose(f"port {text}", "is not one port: a slot has one")
        else:
            self.ports.append((whole(outer[-1]) if outer else None, port))

    def gpus(self, ids: Iterable[str]) -> None:
        """Take NVIDIA GPUs, by number or ``all``, as CDI names them."""
        self.devices += [f"nvidia.com/gpu={each}" for each in ids]

    def memory(self, size: object) -> None:
        """Take a limit of memory in docker's spelling."""
        self.slot.setdefault("limits", {})["memory"] = docker_size(size) or str(size)

    def cpus(self, number: object) -> None:
        """Take a limit of CPUs."""
        try:
            self.slot.setdefault("limits", {})["cpus"] = float(str(number))
        except ValueError:
            self.lose("cpus", "is no number")


def declare(box: Container) -> str:
    """Add the manifests of a container that runs an engine; return its slot's name, empty where it is none."""
    kind, words = _engine(box)
    if kind is None:
        return ""
    flags, box.env = from_env(box.env) if kind.name == "llama-server" else ([], box.env)
    command = read(kind, [*words, *flags])
    for what, why in command.lost:
        box.lose(what, why)
    model = _model(box, command)
    if not model:
        return ""
    profile = _profile(box, kind, command)
    if profile is None:
        return ""
    names = [*box.aliases, *command.says.get(Says.NAME, "").split(",")]
    return box.draft.slot(box.where, box.name, _slot(box, kind, command, model, profile), names)


def _engine(box: Container) -> tuple[EngineKind | None, list[str]]:
    """Return the engine, and its words without the program. What starts the program becomes the entrypoint."""
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
    elif by_word.name != words[0]:
        box.lose(words[0], "hal0 runs the engine of the profile's image")
    return by_word, words[1:]


def _model(box: Container, command: Command) -> str:
    """Return the name of the Model that a command line names; empty where it names none that hal0 can find."""
    says = command.says
    path, name = says.get(Says.MODEL, ""), ""
    if not path and (repo := says.get(Says.REPO, "")):
        repo, _, quant = repo.partition(":")
        file = says.get(Says.REPO_FILE) or (quant or "model") + ".gguf"
        path, name = f"{repo}/{file}", posixpath.basename(repo)
    path = path or posixpath.basename(says.get(Says.URL, "").partition("?")[0])
    if not path or unknown_in(path):
        unset = unknown_in(path)
        hint = f"its path holds {unset}: --set {unset}=VALUE gives it a value" if unset else "it names none"
        box.leave_out("its model", f"a slot needs a model's file, and {hint}")
        return ""
    found = _path_on_host(box, path)
    if not found:
        box.leave_out(path, "lies inside of the image: a slot needs a file of the host")
        return ""
    if not posixpath.isabs(found):
        box.lose(f"the place of {found}", "is not known: put it there below the model directory, or name its path")
    return box.draft.model(box.where, found, name=name)


def _path_on_host(box: Container, path: str) -> str:
    """Return where a file of the container is on the host; one of a volume by name is below the model directory."""
    if not posixpath.isabs(path):
        return posixpath.normpath(path).lstrip("./") or ""
    if not box.image:
        return posixpath.normpath(path)
    holder = _holder(box, path)
    if holder is None:
        return ""
    below = posixpath.relpath(path, holder.target)
    return posixpath.normpath(posixpath.join(holder.source, below))


def _holder(box: Container, path: str) -> Mount | None:
    """Return the innermost mount that a path of the container lies in."""
    holding = [mount for mount in box.mounts if _is_below(path, mount.target)]
    return max(holding, key=lambda mount: len(mount.target), default=None)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _profile(box: Container, kind: EngineKind, command: Command) -> str | None:
    """Return the Profile's name; empty where the device's seed profile will do, None where there can be none."""
    is_llama = kind.name == Engine.LLAMA_SERVER
    if not box.image and is_llama:
        if "probe" in box.profile:
            box.lose("its health check", "is the seed profile's own: see `probe` of a Profile")
        return ""
    keys: Keys = {"engine": Engine.LLAMA_SERVER.value if is_llama else Engine.CUSTOM.value}
    keys |= {
        "image": box.image or kind.image,
        "devices": box.devices,
        "groups": box.groups,
        "mounts": _mounts(box, command),
    }
    keys |= {"entrypoint": kind.entrypoint} if kind.entrypoint else {}
    keys |= {"port": _inside(box, kind, command), "probe": kind.probe} | _paths(kind, command) | box.profile
    if not box.image:
        box.lose(f"{kind.name} of the host", f"is a container of {kind.image} here: see the Profile")
    name = box.draft.profile(box.where, model_id(keys["image"].partition("@")[0], ()), keys)
    return name or None


def _inside(box: Container, kind: EngineKind, command: Command) -> int:
    """Return the port that the engine listens on in its container."""
    published = next((inside for _, inside in box.ports), kind.port)
    return whole(command.says.get(Says.PORT, "")) or published


def _paths(kind: EngineKind, command: Command) -> Keys:
    """Return where a whisper-server answers what /v1 calls transcriptions."""
    if kind.type is not SlotType.TRANSCRIPTION:
        return {}
    route = command.says.get(Says.PREFIX, "") + command.says.get(Says.ROUTE, "/inference")
    return {"paths": {"/v1/audio/transcriptions": route}}


def _mounts(box: Container, command: Command) -> list[str]:
    """Return the mounts that the engine needs beside hal0's own, which is that of its model."""
    holder, kept = _holder(box, command.says.get(Says.MODEL, "")), []
    for mount in box.mounts:
        is_used = any(mount.target in word for word in (*command.rest, *box.env.values()))
        if not mount.source or (mount is holder and not is_used):
            continue
        kept.append(":".join(part for part in (mount.source, _seen_at(mount.target), mount.options) if part))
    return kept


def _seen_at(target: str) -> str:
    """Return where a mount is seen: not where hal0 mounts the models."""
    return _ELSEWHERE + target if _is_below(target, MODELS_IN_CONTAINER) else target


def _moved(box: Container, text: str) -> str:
    """Return a word with the paths of mounts that were moved."""
    for mount in box.mounts:
        if mount.source and _is_below(mount.target, MODELS_IN_CONTAINER):
            text = re.sub(rf"(?<![\w./-]){re.escape(mount.target)}(?=/|$)", _seen_at(mount.target), text)
    return text


def _slot(box: Container, kind: EngineKind, command: Command, model: str, profile: str) -> Keys:
    says, device = command.says, _device(box, command)
    keys: Keys = {"type": command.type.value, "model": model, "device": device.value, **box.slot}
    keys |= {"profile": profile} if profile else {}
    keys |= {"context_size": size} if (size := whole(says.get(Says.CONTEXT, ""))) else {}
    keys |= {"port": port} if (port := next((outer for outer, _ in box.ports if outer), None)) else {}
    keys |= {"env": {name: _moved(box, value) for name, value in box.env.items()}}
    own = _layers(says.get(Says.LAYERS, ""), device, has_seed=not profile)
    keys["args"] = [*_call(kind, command, model), *own, *(_moved(box, word) for word in command.rest)]
    for word in command.rest if not box.image else ():
        if posixpath.isabs(word):
            box.lose(f"the file {word}", "is not in the container: a Profile with a mount shows it to the engine")
    return keys


def _call(kind: EngineKind, command: Command, model: str) -> list[str]:
    """Return a custom engine's own command line: what hal0 fills in stays in braces."""
    filled = {"{model_flag}": command.model_flag, "{served}": model}
    call = [filled.get(word, word) for word in kind.call]
    size = command.says.get(Says.CONTEXT, "")
    if kind.call and size:
        call += ["--max-model-len", "{context_size}" if whole(size) else size]
    return call


def _layers(number: str, device: Device, *, has_seed: bool) -> list[str]:
    """Return the flag of the layers on the GPU, unless a seed profile says the same."""
    count = whole(number)
    all_of_them = count is None or count >= _ALL_LAYERS
    if not number or (has_seed and (device is Device.CPU or all_of_them)):
        return []
    return ["--n-gpu-layers", number]


def _device(box: Container, command: Command) -> Device:
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
    return box.given.gpu if layers and not box.image else Device.CPU
