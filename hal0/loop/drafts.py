"""Texts that are to be manifests: resolved before they are written, and refused where anything would be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hal0.core.documents import ManifestError
from hal0.core.effect import When, effect
from hal0.core.kinds import Manifest
from hal0.core.plan import plan
from hal0.core.spec import Desired
from hal0.core.validate import Located
from hal0.core.wire import Json
from hal0.errors import Conflict
from hal0.host import edits
from hal0.host.git import NotCommitted, Repository
from hal0.host.ports import MANIFESTS
from hal0.loop.observe import Observer
from hal0.loop.operations import InvalidManifests
from hal0.loop.reconcile import Reconciler

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Persisted:
    """What became of a draft. ``commit`` is the commit's short name; ``warning`` is why there is none, but should be.

    Both are empty where the Host manifest asks for no commits, or where the file said it all already.
    """

    file: str
    commit: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to be put in the place of another, and what the manifests would then ask for. None is: no file."""

    file: Path
    before: str | None
    after: str | None
    desired: Desired
    message: str
    changes: tuple[Json, ...] = ()


async def text_of(reconciler: Reconciler, located: Located[Manifest]) -> tuple[Path, str]:
    """Return where a manifest is written, and all that is written there."""
    file = edits.place(reconciler.source.root.path, Path(located.document.file))
    text = await asyncio.to_thread(edits.read, file)
    if text is None:
        raise Conflict(f"{file} went away meanwhile", hint="try again")
    return Path(located.document.file), text


async def new_file(reconciler: Reconciler, name: str) -> Path:
    """Return where a new manifest goes. Raises ``Conflict`` where that is taken, or the root is a file."""
    root = reconciler.source.root.path
    file = root / f"{name}.toml"
    if root.is_file() or await asyncio.to_thread(file.exists):
        raise Conflict(f"{root if root.is_file() else file} is there already", hint="add the manifest by hand")
    return file


async def drafted(
    reconciler: Reconciler,
    file: Path,
    before: str | None,
    after: str | None,
    message: str,
    *,
    beside: Draft | None = None,
) -> Draft:
    """Return a draft, with one ``beside`` it that is to be written first.

    Raises ``InvalidManifests`` where the manifests would have a problem with it that they don't have now.
    """
    known = {_blame(problem) for problem in (await reconciler.source.load()).problems}
    others = {str(beside.file): beside.after} if beside else {}
    desired = await reconciler.source.having({**others, str(file): after})
    if wrong := [problem for problem in desired.problems if _blame(problem) not in known]:
        raise InvalidManifests(wrong)
    return Draft(file, before, after, desired, message)


def _blame(problem: ManifestError) -> ManifestError:
    """Return a problem wherever it has moved to within its file."""
    return replace(problem, line=0)


async def effect_of(reconciler: Reconciler, name: str, draft: Draft | None) -> Json:
    """Return what a draft will do to its slot, by a look and a plan of our own: nothing is carried out."""
    desired, now = draft.desired if draft else await reconciler.source.load(), reconciler.clock.now()
    if (slot := desired.slots.get(name)) and slot.problems:
        return _effect(When.WAITS, f"not yet, the manifests have errors: {slot.problems[0]}")
    ours = reconciler.observer
    observer = Observer(ours.runtime, ours.prober, ours.hardware, digests=ours.digests)
    store = reconciler.store
    observed = await observer.look(desired, store.specs, store.stand_ins, only=frozenset({name}), now=now)
    world = replace(reconciler.world(observed, desired), deletions=frozenset({name}))
    return _effect(*effect(plan(world).change(name)))


def _effect(when: When, message: str) -> Json:
    return {"effect": {"when": when.value, "message": message}}


async def write(reconciler: Reconciler, draft: Draft) -> Persisted:
    """Put a draft in its place, and commit it where the Host manifest says so. Raises ``Conflict``."""
    if draft.before == draft.after:
        return Persisted(str(draft.file))
    return await asyncio.to_thread(_put, reconciler.source.root.base, draft)


def _put(root: Path, draft: Draft) -> Persisted:
    file, commits = edits.place(root, draft.file), draft.desired.host.commit
    repository = Repository.of(file) if commits else None
    was_clean = repository is not None and repository.is_clean(file)
    edits.replace(file, draft.before, draft.after)
    if repository and was_clean:
        return _committed(repository, file, draft)
    where = "the file had changes that git does not have" if repository else f"{file.parent} is in no git repository"
    return Persisted(str(draft.file), warning=f"not committed: {where}" if commits else "")


def _committed(repository: Repository, file: Path, draft: Draft) -> Persisted:
    try:
        return Persisted(str(draft.file), repository.commit(file, draft.message))
    except NotCommitted as error:
        return Persisted(str(draft.file), warning=f"not committed: {error}")


async def carried_out(reconciler: Reconciler, done: Callable[[], bool]) -> bool:
    """Have a pass made, and wait until something is so, for a minute at the most. Return whether it is."""
    with reconciler.feed.subscribe() as news:
        await reconciler.run(frozenset({MANIFESTS}))
        deadline = reconciler.clock.now() + _PATIENCE
        while not done() and (left := deadline - reconciler.clock.now()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(news.get(), left)
    return done()
