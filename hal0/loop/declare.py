"""Models that hal0 declares for an operator: what was found, and what is fetched by where it comes from."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from hal0.core.catalog import model_id
from hal0.core.model import Source, SourceKind
from hal0.core.modelpath import last_segment
from hal0.core.reference import FOLDER_FILES, Offer, Reference, is_folder, offers, reference
from hal0.core.registry import ModelSpec
from hal0.core.wire import VERSION, Json, source_json
from hal0.errors import Conflict, StepFailed, UsageError
from hal0.loop import authoring, models
from hal0.loop.drafts import Persisted
from hal0.loop.reconcile import Reconciler

_NO_GGUF = "nor is it a model's folder: config.json and *.safetensors"


async def scan(reconciler: Reconciler, *, who: str) -> Json:
    """Declare every model that was found whole and that no manifest declares, and return what was written where."""
    found = await models.models(reconciler)
    manifests = [each["manifest"] for each in found["models"] if each["manifest"]]
    written = await authoring.declare(reconciler, manifests, who=who) if manifests else Persisted("")
    return {"version": VERSION, "model_dir": found["model_dir"], "manifests": manifests} | _persisted(written)


async def pull(reconciler: Reconciler, wanted: str, *, name: str = "", who: str) -> AsyncIterator[Json]:
    """Fetch a model by its name, or by where it comes from: then it is declared first, as ``name``.

    Yields as ``models.pull`` does, with ``asked`` and ``declared`` before. Of a repository without a file it yields
    what that offers instead. Raises ``NotFound``, ``Conflict`` for a name that is taken, and ``StepFailed`` where there
    is no such file: nothing was written then.
    """
    where = None if wanted in reconciler.desired.models else reference(wanted)
    if where is None:
        model = wanted
    elif (there := _declared(reconciler, where.source)) is not None:
        model = _same(there, name)
    else:
        yield {"event": "asked", "source": source_json(where.source)}  # servers may be slow, or say no
        source = where.source if where.is_file else await _picked(reconciler, where)
        if isinstance(source, dict):
            yield source
            return
        model = name or _name(source)
        yield await _declare(reconciler, source, model, who)
    async for event in models.pull(reconciler, model):
        yield event


async def _declare(reconciler: Reconciler, source: Source, name: str, who: str) -> Json:
    """Write a Model's manifest, once its source is known to be there."""
    _check_free(name, reconciler.desired.models)
    size = await reconciler.actor.transfers.fetcher.size_of(source)
    manifest = {"kind": "Model", "name": name, "source": _manifest(source)}
    written = await authoring.declare(reconciler, [manifest], who=who)
    return {"event": "declared", "model": name, "source": source_json(source), "size_bytes": size} | _persisted(written)


def _declared(reconciler: Reconciler, source: Source) -> ModelSpec | None:
    """Return the Model that comes from there already."""
    wanted = replace(source, include=())
    specs = [spec for spec in reconciler.desired.registry.values() if replace(spec.source, include=()) == wanted]
    return specs[0] if specs else None


def _same(there: ModelSpec, name: str) -> str:
    if name and name not in {there.name, *there.aliases}:
        raise Conflict(f"it is declared as {there.name}, in {there.place}", hint="add the name to its `aliases`")
    return there.name


def _check_free(name: str, taken: Collection[str]) -> None:
    if name in taken:
        raise Conflict(f"there is another model {name!r}", hint="give this one a name: --name")


def _name(source: Source) -> str:
    file = source.file or source.repo if source.kind is SourceKind.HUB else last_segment(source.url)
    if not file:
        raise UsageError("its address ends without the name of a file", hint="declare it in a manifest, with a `path`")
    return model_id(posixpath.basename(file))


def _manifest(source: Source) -> Json:
    """Return a source as its manifest says it: whole, since an address' query may be needed."""
    if source.kind is SourceKind.URL:
        return {"url": source.url}
    revision = {} if source.revision == Source().revision else {"revision": source.revision}
    file = {"file": source.file} if source.file else {}
    include = {"include": list(source.include)} if source.include else {}
    return {"repo": source.repo} | file | revision | include


async def _picked(reconciler: Reconciler, where: Reference) -> Source | Json:
    """Return the one model that a repository is asked for: by a tag, or as it is a folder; else what it offers."""
    files = await reconciler.actor.transfers.fetcher.listing(where.source)
    found = offers(files, where.tag)
    if where.tag and len(found) == 1:
        return replace(where.source, file=found[0].file)
    if not where.tag and not found and is_folder(files):
        return replace(where.source, include=FOLDER_FILES)
    return _offered(where, found)


def _offered(where: Reference, found: Collection[Offer]) -> Json:
    """Return what a repository has, each with the word that would fetch it. Raises ``StepFailed`` for nothing."""
    source = where.source
    if not found:
        which = f" with {where.tag} in its name" if where.tag else ""
        raise StepFailed(f"{source.repo} has no GGUF file{which}", hint=_NO_GGUF if not where.tag else "leave it out")
    at = "" if source.revision == Source().revision else f"@{source.revision}"
    files = [{"file": each.file, "size_bytes": each.size, "pull": f"{source.repo}/{each.file}{at}"} for each in found]
    return {"event": "offers", "repo": source.repo, "revision": source.revision, "files": files}


def _persisted(written: Persisted) -> Json:
    return {"file": written.file, "commit": written.commit, "warning": written.warning}
