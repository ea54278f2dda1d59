"""Where the files of a container are on the host, and how an engine sees them when hal0 runs it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from hal0.core.launch import MODELS_IN_CONTAINER

_ELSEWHERE = "/imported"  # where a mount goes that hal0's own, of the models, would hide


@dataclass(slots=True)
class Mount:
    """A bind: a path of the host, empty where it is a volume by name, and a path in the container."""

    source: str
    target: str
    options: str = ""


def on_host(path: str, mounts: Iterable[Mount], *, is_inside: bool) -> str:
    """Return where a file is on the host, be it named inside of a container or not; empty where nobody can tell.

    A path that is not absolute is one below the model directory. So is that of a file on a volume by name.
    """
    if not posixpath.isabs(path):
        below = posixpath.normpath(path)
        return "" if below.split("/")[0] in {".", ".."} else below
    if not is_inside:
        return posixpath.normpath(path)
    holder = holder_of(path, mounts)
    if holder is None:
        return ""
    return posixpath.normpath(posixpath.join(holder.source, posixpath.relpath(path, holder.target)))


def holder_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the innermost mount that a path of the container lies in."""
    holding = [mount for mount in mounts if _is_below(path, mount.target)]
    return max(holding, key=lambda mount: len(mount.target), default=None)


def kept(mounts: Iterable[Mount], words: Iterable[str], model: str) -> list[str]:
    """Return the mounts that an engine needs beside hal0's own, which is that of its model, as podman spells them."""
    mounts, words = list(mounts), list(words)
    holder, needed = holder_of(model, mounts), []
    for mount in mounts:
        is_used = any(mount.target in word for word in words)
        if not mount.source or (mount is holder and not is_used):
            continue
        needed.append(":".join(part for part in (mount.source, _seen_at(mount.target), mount.options) if part))
    return needed


def moved(text: str, mounts: Iterable[Mount]) -> str:
    """Return a word with the paths of mounts that were moved."""
    for mount in mounts:
        if mount.source and _is_below(mount.target, MODELS_IN_CONTAINER):
            text = re.sub(rf"(?<![\w./-]){re.escape(mount.target)}(?=/|$)", _seen_at(mount.target), text)
    return text


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _seen_at(target: str) -> str:
    """Return where a mount is seen: not where hal0 mounts the models."""
    return _ELSEWHERE + target if _is_below(target, MODELS_IN_CONTAINER) else target
