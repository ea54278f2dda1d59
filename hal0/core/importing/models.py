"""The Model that an engine's command line names: its file, where that comes from, and its vision part."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from hal0.core.importing.containers import Container
from hal0.core.importing.draft import Keys
from hal0.core.importing.engines import Command, Says
from hal0.core.importing.places import on_host
from hal0.core.importing.words import unknown_in

_QUANT = "Q4_K_M"  # what llama.cpp takes of a repository where nobody says which
_OF_REPOSITORY = ("-GGUF", "-gguf", "_GGUF", ".GGUF")


def declare_model(box: Container, command: Command) -> tuple[str, tuple[str, ...]]:
    """Add the Model; return its name, which is empty where there can be none, and what remains for the engine."""
    says = command.says
    for what in (Says.MODEL, Says.REPO, Says.REPO_FILE, Says.URL):
        if name := unknown_in(says.get(what, "")):
            _none(box, f"its path holds {name}: --set {name}=VALUE gives it a value")
            return "", ()
    source = _source(box, says)
    path = says.get(Says.MODEL, "")
    found = on_host(path, box.mounts, is_inside=bool(box.image)) if path else ""
    if path and not found and not source:
        box.leave_out(path, "lies inside of the image: a slot needs a file of the host")
    elif not found and not source:
        _none(box, "it names none")
    if not found and not source:
        return "", ()
    if not source and not posixpath.isabs(found):
        box.lose(f"the place of {found}", "is not known: put it there below the model directory, or name its path")
    keys: Keys = ({"path": found} if found else {}) | ({"source": source} if source else {})
    mmproj = _mmproj(box, found, source, says.get(Says.MMPROJ, ""))
    remains = ("--mmproj", says[Says.MMPROJ]) if says.get(Says.MMPROJ) and not mmproj else ()
    keys |= {"mmproj": mmproj} if mmproj else {}
    name = "" if found else posixpath.basename(str(source.get("file", "")))
    return box.draft.model(box.where, keys, name=name), remains


def _none(box: Container, why: str) -> None:
    box.leave_out("its model", f"a slot needs a model's file, and {why}")


def _source(box: Container, says: Mapping[Says, str]) -> dict[str, str]:
    """Return the keys of a Model's ``source``; none where the model is a file of the host."""
    if repo := says.get(Says.REPO, ""):
        repo, _, quant = repo.partition(":")
        return {"repo": repo, "file": says.get(Says.REPO_FILE) or _usual_file(box, repo, quant)}
    if url := says.get(Says.URL, ""):
        return {"url": url}
    return {}


def _usual_file(box: Container, repo: str, quant: str) -> str:
    """Return the file that such a repository most often has. llama.cpp asks the hub, which an import does not."""
    stem = posixpath.basename(repo)
    for ending in _OF_REPOSITORY:
        stem = stem.removesuffix(ending)
    file = f"{stem}-{quant or _QUANT}.gguf"
    why = "is a guess, for llama.cpp asks the hub: see `source` of the Model, and `mmproj` if it can see"
    box.lose(f"the name of {file}", why)
    return file


def _mmproj(box: Container, path: str, source: Mapping[str, str], said: str) -> str:
    """Return the vision part's path on the host, where a slot that sees the model sees it as well; else nothing."""
    if not said or source or unknown_in(said):
        return ""
    found = on_host(said, box.mounts, is_inside=bool(box.image))
    if posixpath.isabs(path) != posixpath.isabs(found):
        return ""
    return found if found.startswith(posixpath.dirname(path) + "/" if posixpath.isabs(path) else "") else ""
