"""A container that runs an engine, whoever declared it, as its options say it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from hal0.core.importing.draft import Draft, Given, Keys
from hal0.core.importing.places import Mount
from hal0.core.importing.words import docker_size, holds_secret, unknown_in, whole


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

    def shared_memory(self, size: object) -> None:
        """Take the size of the shared memory in docker's spelling."""
        self.profile["shm_size"] = docker_size(size) or str(size)

    def cpus(self, number: object) -> None:
        """Take a limit of CPUs."""
        try:
            self.slot.setdefault("limits", {})["cpus"] = float(str(number))
        except ValueError:
            self.lose("cpus", "is no number")
