"""The Model that an engine's command line names: its file, where that comes from, and its vision part."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from hal0.core.importing.containers import Container
from hal0.core.importing.draft import Keys
from hal0.core.importing.engines import Command, Says
from hal0.core.importing.places import on_host
from hal0.core.importing.words import unknown_in

_NAMING = (Says.MODEL, Says.REPO, Says.REPO_FILE, Says.URL)
_QUANT = "Q4_K_M"  # what llama.cpp takes of a repository where nobody says which
_OF_REPOSITORY = ("-GGUF", "-gguf", "_GGUF", ".GGUF")


def declare_model(box: Container, command: Command) -> tuple[str, tuple[str, ...]]:
    """Add the Model; return its name, which is empty where there can be none, and what remains for the engine."""
    says = command.says
    if unset := next(filter(None, (unknown_in(says.get(what, "")) for what in _NAMING)), ""):
        _none(box, f"its path holds {unset}: --set {unset}=VALUE gives it a value")
        return "", ()
    source, found = _source(box, says), _path(box, says.get(Says.MODEL, ""))
    if not (found or source):
        if not says.get(Says.MODEL):
            _none(box, "it names none")
        else:
            inside, above = "lies inside of the image", "leads out of a folder that is not known"
            box.leave_out(says[Says.MODEL], f"{inside if box.image else above}: a slot needs a file of the host")
        return "", ()
    if not source and not posixpath.isabs(found):
        box.lose(f"the place of {found}", "is not known: put it there below the model directory, or name its path")
    said = says.get(Says.MMPROJ, "")
    mmproj = "" if source else _mmproj(box, found, said)
    keys: Keys = {"path": found, "source": source, "mmproj": mmproj}
    name = box.draft.model(box.where, {key: value for key, value in keys.items() if value})
    return name, ("--mmproj", said) if said and not mmproj else ()


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


def _path(box: Container, said: str) -> str:
    return on_host(said, box.mounts, is_inside=bool(box.image)) if said else ""


def _mmproj(box: Container, path: str, said: str) -> str:
    """Return the vision part's path on the host, where a slot that sees the model sees it as well; else nothing."""
    found = "" if unknown_in(said) else _path(box, said)
    if posixpath.isabs(path) != posixpath.isabs(found):
        return ""
    folder = posixpath.dirname(path) + "/" if posixpath.isabs(path) else ""
    return found if found.startswith(folder) else ""
