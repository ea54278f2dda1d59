"""Names of model files: the parts of one that was split, and the folder that a slot sees of it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_PART = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
_MOST_PARTS = 1000


def parts(path: str) -> tuple[str, ...]:
    """Return the files of a model by the path of any of them: all parts of one that was split, else that one."""
    split = _PART.fullmatch(path)
    count = int(split[2]) if split else 0
    if not split or not 1 <= count <= _MOST_PARTS:
        return (path,)
    return tuple(f"{split[1]}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1))


def files_of(path: str, mmproj: str) -> tuple[str, ...]:
    """Return the files of a model and of its vision part, which may be empty."""
    return (*parts(path), mmproj) if mmproj else parts(path)


def stem(path: str) -> str:
    """Return a model's path without its format and the number of its part."""
    split = _PART.fullmatch(path)
    if split:
        return split[1]
    name, suffix = posixpath.splitext(path)
    return name if suffix[1:2].isalpha() else path  # Qwen2.5-7B is a folder


def mount_root(path: str, folders: Iterable[str]) -> str:
    """Return the folder that a container sees of a model: that of ``folders`` which holds it, else the model's own."""
    return next((folder for folder in folders if is_below(path, folder)), posixpath.dirname(path))


def is_below(path: str, folder: str) -> bool:
    """Return whether a path leads into a folder, by its name alone."""
    return path.startswith(folder.rstrip("/") + "/")


def last_segment(url: str) -> str:
    """Return the name of the file that an address ends with; empty where that is none that hal0 can mount."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return name if name not in {".", ".."} and ":" not in name and name.isprintable() else ""
