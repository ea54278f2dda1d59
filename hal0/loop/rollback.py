"""Going back to earlier manifests: their files are written where today's are, and applied."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from hal0.core.documents import ManifestError
from hal0.core.lock import LOCK_NAME
from hal0.core.spec import Desired
from hal0.core.wire import Json
from hal0.errors import Conflict, NotFound, UsageError
from hal0.host.ledger import Ledger
from hal0.host.manifests import ManifestRoot, ManifestSet
from hal0.host.revisions import texts_at
from hal0.host.rewrite import rewrite
from hal0.loop.operations import ApplyRequest, InvalidManifests, apply
from hal0.loop.reconcile import Reconciler

_GENERATION = re.compile(r"g(\d{1,9})")


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """Where to go back to: ``gN``, a git revision, or empty for the last generation that converged.

    ``force``: edits that were never applied may be lost. The rest is as in ``ApplyRequest``.
    """

    rev: str = ""
    force: bool = False
    prune_all: bool = False
    timeout: float = ApplyRequest().timeout
    who: str = ""
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class _Target:
    """Manifests to go back to: how they are called, git's commit where it is known, and their texts."""

    name: str
    revision: str
    texts: Mapping[str, str]


async def rollback(reconciler: Reconciler, request: RollbackRequest) -> AsyncIterator[Json]:
    """Bring earlier manifests back and apply them; yield which files change, then what ``apply`` yields.

    Before any file is changed, raises ``NotFound`` for a revision that nobody knows, ``Conflict`` where edits would be
    lost or there is nothing to do, and ``InvalidManifests`` where those manifests would be wrong today.
    """
    # A client that goes away must not leave half of the files to the next pass.
    told = await asyncio.shield(asyncio.create_task(_written_back(reconciler, request)))
    yield told
    note = f"rollback to {told['to']}"
    asked = ApplyRequest(None, request.prune_all, request.timeout, request.who, note, request.atomic)
    async for event in apply(reconciler, asked):
        yield event


async def _written_back(reconciler: Reconciler, request: RollbackRequest) -> Json:
    """Write the files while no pass is made; return the event that tells which."""
    source, ledger = reconciler.source, reconciler.store.ledger
    async with reconciler.between_passes():
        desired = await source.load()
        now = await source.root.load()
        target = await asyncio.to_thread(_target, source.root, request.rev) if request.rev else None
        target = target or _kept(ledger, request.rev, desired, now.texts)
        written, removed = _changes(target, now.texts)
        if not request.force:
            committed = await asyncio.to_thread(_committed, source.root)
            _keep_edits(now, [*written, *removed], _latest(ledger), committed)
        _check(source.problems_of(target.texts), target)
        await asyncio.to_thread(rewrite, source.root.base, now.texts, target.texts)
    return {
        "event": "rollback",
        "to": target.name,
        "revision": target.revision,
        "written": written,
        "removed": removed,
    }


def _target(root: ManifestRoot, rev: str) -> _Target | None:
    """Return the manifests of a git revision; None for the name of a generation."""
    if _GENERATION.fullmatch(rev):
        return None
    texts = texts_at(root.base, rev)
    if root.path.is_file():
        texts = {file: text for file, text in texts.items() if file in {root.path.name, LOCK_NAME}}
    if not texts.keys() - {LOCK_NAME}:
        raise Conflict(f"revision {rev} has no manifests below {root.path}")
    return _Target(rev, "", texts)


def _kept(ledger: Ledger, rev: str, desired: Desired, now: Mapping[str, str]) -> _Target:
    """Return the kept manifests of a generation, or of the last one that converged and is not what there is now."""
    if found := _GENERATION.fullmatch(rev):
        kept = ledger.revision(int(found[1]))
        candidates = [kept] if kept else []
    else:
        candidates = [
            kept
            for kept in ledger.converged()
            if kept.files != now and (kept.generation < desired.generation or desired.problems)
        ]
    if not candidates:
        what = f"the manifests of {rev} are not kept" if rev else "no earlier manifests that converged are kept"
        raise NotFound(what, hint="see hal0 history, or name a git revision")
    return _Target(f"g{candidates[0].generation}", candidates[0].revision, candidates[0].files)


def _changes(target: _Target, now: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the files to write and those to remove."""
    written = sorted(file for file, text in target.texts.items() if now.get(file) != text)
    removed = sorted(set(now) - set(target.texts))
    if not (written or removed):
        raise Conflict(f"the manifests are those of {target.name} already", hint="run hal0 apply to apply them again")
    return written, removed


def _keep_edits(now: ManifestSet, touched: list[str], *known: Mapping[str, str]) -> None:
    """Raise ``Conflict`` where a file would be lost that is not ``known`` from elsewhere as it is now."""
    if now.files != len(now.texts):
        raise Conflict(f"nothing was changed: {now.errors[0]}", hint="make it readable, or use --force")
    edited = {file: now.texts[file] for file in touched if file in now.texts}
    lost = [file for file, text in edited.items() if all(texts.get(file) != text for texts in known)]
    if lost:
        hint = "apply or commit them first, or use --force to lose them"
        raise Conflict(f"edits that were never applied would be lost: {', '.join(lost)}", hint=hint)


def _latest(ledger: Ledger) -> Mapping[str, str]:
    latest = ledger.latest()
    return latest.files if latest else {}


def _committed(root: ManifestRoot) -> Mapping[str, str]:
    try:
        return texts_at(root.base, "HEAD")
    except UsageError:
        return {}


def _check(problems: tuple[ManifestError, ...], target: _Target) -> None:
    if problems:
        refused = InvalidManifests(problems)
        refused.hint = f"these are the manifests of {target.name}: name another revision"
        raise refused
