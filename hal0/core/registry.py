"""The declared models, resolved: where each one's files lie, and what brings them there."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from hal0.core.documents import ManifestError
from hal0.core.model import Source, SourceKind
from hal0.core.modelpath import files_of, last_segment, mount_root, parts
from hal0.core.pins import FilePin, ModelPin
from hal0.core.schema import Fetch, ModelManifest, SourceManifest
from hal0.core.validate import Located


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a model: where it comes from, the path that it is put at, its sha256 where that is known.

    ``pin`` is what the lock says that it is.
    """

    source: Source
    path: str
    sha256: str = ""
    pin: FilePin | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """What brings a model here: its files, in the order in which they are fetched."""

    model: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One Model manifest, resolved. Paths are absolute; ``mmproj`` and ``sha256`` are empty unless stated.

    ``place`` is the manifest's ``file:line``, ``pin`` what the lock says of it.
    """

    name: str
    path: str
    source: Source = field(default_factory=Source)
    sha256: str = ""
    mmproj: str = ""
    fetch: Fetch = Fetch.AUTO
    aliases: tuple[str, ...] = ()
    context_size: int | None = None
    place: str = ""
    pin: ModelPin | None = None

    @property
    def pins(self) -> tuple[FilePin, ...]:
        """What each of ``files`` has to be; empty where it is not locked."""
        return self.pin.files if self.pin else ()

    @property
    def wanted_sha256(self) -> str:
        """The sha256 that its first file has to have, by the lock or by its manifest; empty where neither says."""
        return self.pin.files[0].sha256 if self.pin else self.sha256

    @property
    def files(self) -> tuple[str, ...]:
        """The files that have to be there for a slot to start."""
        return files_of(self.path, self.mmproj)

    @property
    def download(self) -> Download | None:
        """What fetches it, as it is locked; None where it is put there by hand."""
        if self.source.kind is SourceKind.FILE:
            return None
        return Download(self.name, tuple(self._remote_files()))

    def _remote_files(self) -> Iterator[RemoteFile]:
        commit = self.pin.commit if self.pin else ""
        for at, file in enumerate(self._declared_files()):
            pin = self.pin.files[at] if self.pin else None
            source = replace(file.source, revision=commit) if commit else file.source
            yield replace(file, source=source, sha256=pin.sha256 if pin else file.sha256, pin=pin)

    def _declared_files(self) -> list[RemoteFile]:
        parted = zip(part_sources(self.source), parts(self.path), strict=True)
        files = [RemoteFile(source, path, self.sha256) for source, path in parted]
        if self.mmproj and self.source.kind is SourceKind.HUB:
            # It lies beside the model in the repository, as it does here.
            file = posixpath.join(posixpath.dirname(self.source.file), posixpath.basename(self.mmproj))
            source = Source(SourceKind.HUB, repo=self.source.repo, file=file, revision=self.source.revision)
            files.append(RemoteFile(source, self.mmproj))
        return files


def model_spec(located: Located[ModelManifest], model_dir: str) -> ModelSpec:
    """Return a Model manifest, resolved for a host whose models lie below ``model_dir``."""
    own = located.manifest
    source = _source(own.source)
    path = posixpath.normpath(posixpath.join(model_dir, own.path or _default_path(source)))
    return ModelSpec(
        name=own.name,
        path=path,
        source=source,
        sha256=(own.sha256 or "").lower(),
        mmproj=_mmproj(own.mmproj, path, source, model_dir),
        fetch=own.fetch,
        aliases=tuple(own.aliases),
        context_size=own.context_size,
        place=located.source,
    )


def registry_errors(models: Iterable[Located[ModelManifest]], folders: Sequence[str]) -> Iterator[ManifestError]:
    """Yield an error for each Model whose file another one fetches from elsewhere, or whose mmproj no slot can see.

    ``folders`` are those of models: hal0 writes into the first one, and not into the others.
    """
    model_dir, *others = folders
    first: dict[str, tuple[Located[ModelManifest], ModelSpec]] = {}
    for located in models:
        spec = model_spec(located, model_dir)
        other, its_own = first.setdefault(spec.path, (located, spec))
        if (spec.source, spec.sha256) != (its_own.source, its_own.sha256):
            where = "path" if located.manifest.path else "source"
            yield located.error(f"its file is that of {other.source}, which has another source", where)
        root = mount_root(spec.path, folders)
        if spec.download and root in others:
            hint = f"leave it out, or name a path below {model_dir}"
            yield located.error(f"leads into {root}, where hal0 writes nothing", "path", hint=hint)
        if spec.mmproj and not spec.mmproj.startswith(root.rstrip("/") + "/"):
            hint = "a slot sees the model directory, or the folder of a model that lies elsewhere"
            yield located.error(f"is not below {root}, where the model is", "mmproj", hint=hint)


def _source(manifest: SourceManifest | None) -> Source:
    if manifest is None:
        return Source()
    if manifest.url:
        return Source(SourceKind.URL, url=manifest.url)
    revision = manifest.revision or Source().revision
    include = tuple(manifest.include)
    return Source(SourceKind.HUB, "", manifest.repo or "", manifest.file or "", revision, include)


def _default_path(source: Source) -> str:
    if source.kind is SourceKind.HUB:
        return posixpath.join(source.repo, source.file)
    return last_segment(source.url)


def _mmproj(mmproj: str | None, path: str, source: Source, model_dir: str) -> str:
    """Return the path of the vision part: beside the model where it comes from the model's repository."""
    if not mmproj:
        return ""
    if source.kind is SourceKind.HUB:
        return posixpath.join(posixpath.dirname(path), posixpath.basename(mmproj))
    return posixpath.normpath(posixpath.join(model_dir, mmproj))


def part_sources(source: Source) -> tuple[Source, ...]:
    """Return where each part of a split model comes from, by the source of any of them; of another one itself."""
    if source.kind is SourceKind.HUB:
        return tuple(replace(source, file=name) for name in parts(source.file))
    before, mark, query = source.url.partition("?")
    return tuple(replace(source, url=name + mark + query) for name in parts(before))
