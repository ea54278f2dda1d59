"""What a person calls a model that is to be fetched: an address, or a file of the hub; and what a repository offers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from hal0.core.catalog import is_mmproj
from hal0.core.model import ListedFile, Source, SourceKind
from hal0.core.modelpath import parts

HUB_HOSTS = frozenset({"huggingface.co", "hf.co"})
_SCHEMES = ("https://", "http://")
_VIEWS = frozenset({"blob", "resolve", "raw", "tree"})
"""What the hub's own addresses have between a repository and a revision."""
_OF_REPO = 2
FOLDER_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""What is fetched of a repository that is a model's folder: not its weights in other formats, too."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A model by where it comes from. A repository without a file has an empty ``source.file``.

    ``tag`` is then what the file's name has in it (``OWNER/REPO:Q4_K_M``); empty for none.
    """

    source: Source
    tag: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it names one model."""
        return self.source.kind is SourceKind.URL or bool(self.source.file)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model of a repository: its file, the first one of a split model, and the bytes of all its files."""

    file: str
    size: int | None


def reference(text: str, hubs: Iterable[str] = HUB_HOSTS) -> Reference | None:
    """Return what is meant by ``https://...``, ``OWNER/REPO/FILE[@REVISION]`` or ``OWNER/REPO[:TAG][@REVISION]``.

    None for what is no such thing. An address that the hub's pages show means the file that it shows; ``hubs`` are
    the hosts whose addresses are read so.
    """
    known = set(hubs)
    if text.startswith(_SCHEMES):
        at = urlsplit(text)
        return _of_page(at.path) if at.netloc.lower() in known else Reference(Source(SourceKind.URL, url=text))
    host, _, rest = text.partition("/")
    name, _, revision = (rest if host.lower() in known else text).partition("@")
    pieces = name.split("/")
    if len(pieces) < _OF_REPO or not all(pieces):
        return None
    last, _, tag = pieces[1].partition(":") if len(pieces) == _OF_REPO else (pieces[1], "", "")
    return _of_hub([pieces[0], last, *pieces[_OF_REPO:]], revision, tag)


def offers(files: Iterable[ListedFile], tag: str = "") -> tuple[Offer, ...]:
    """Return the models that a repository has for llama.cpp; with a ``tag`` those with it in their names."""
    sizes = {file.path: file.size for file in files}
    firsts = dict.fromkeys(parts(path)[0] for path in sizes if path.endswith(".gguf") and not is_mmproj(path))
    there = [Offer(first, _sum(parts(first), sizes)) for first in firsts]
    return tuple(sorted((each for each in there if _has(each.file, tag)), key=lambda each: each.file))


def is_folder(files: Iterable[ListedFile]) -> bool:
    """Return whether a repository is a model's folder, as vLLM takes it."""
    names = {file.path for file in files}
    return "config.json" in names and any(name.endswith(".safetensors") and "/" not in name for name in names)


def _of_page(path: str) -> Reference | None:
    """Return what an address of the hub's pages shows: a file, or a repository."""
    pieces = [piece for piece in path.split("/") if piece]
    if len(pieces) < _OF_REPO:
        return None
    view = pieces[_OF_REPO : _OF_REPO + 2]
    if len(view) == _OF_REPO and view[0] in _VIEWS:
        file = [] if view[0] == "tree" else [unquote(piece) for piece in pieces[_OF_REPO + 2 :]]
        return _of_hub([*pieces[:_OF_REPO], *file], unquote(view[1]), "")
    return _of_hub(pieces[:_OF_REPO], "", "")


def _of_hub(pieces: list[str], revision: str, tag: str) -> Reference:
    file = "/".join(pieces[_OF_REPO:])
    first = parts(file)[0]  # of a split model any part is named
    source = Source(SourceKind.HUB, repo="/".join(pieces[:_OF_REPO]), file=first)
    if revision:
        source = Source(SourceKind.HUB, repo=source.repo, file=first, revision=revision)
    return Reference(source, tag)


def _has(file: str, tag: str) -> bool:
    """Return whether a tag stands in a name on its own: Q4_K is no part of Q4_K_M."""
    return not tag or bool(re.search(rf"(?<![a-z0-9_]){re.escape(tag.lower())}(?![a-z0-9_])", file.lower()))


def _sum(paths: Iterable[str], sizes: Mapping[str, int | None]) -> int | None:
    found = [sizes.get(path) for path in paths]
    return sum(size for size in found if size is not None) if None not in found else None
