"""The text of hal0.lock: TOML, in an order that gives small diffs, read back with the line of what is wrong."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hal0.core.documents import Document, ManifestError, parse_toml
from hal0.core.pins import FilePin, ImagePin, Lock, ModelPin
from hal0.core.validate import show_path

LOCK_NAME = "hal0.lock"
"""The file beside the manifests. It is none of them."""
VERSION = 1
_HEAD = "# What the models and images of these manifests are. Written by `hal0 lock`: keep it in git, don't edit it."
_HINT = f"bring it back from git, or remove {LOCK_NAME} and run hal0 lock"

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _File(_Strict):
    name: str
    sha256: _Sha256
    size: int | None = Field(None, ge=0)


class _Model(_Strict):
    name: str
    source: str = ""
    commit: str = ""
    files: list[_File] = Field(min_length=1)


class _Image(_Strict):
    reference: str
    digest: _Digest | None = None
    id: _Sha256 | None = None

    @model_validator(mode="after")
    def _is_one(self) -> _Image:
        if (self.digest is None) == (self.id is None):
            raise ValueError("exactly one of digest, id is needed")
        return self


class _Whole(_Strict):
    version: Literal[1]
    model: list[_Model] = Field(default_factory=list)
    image: list[_Image] = Field(default_factory=list)


@functools.lru_cache(maxsize=4)
def parse_lock(file: str, text: str) -> Lock | ManifestError:
    """Return what a lock's text says, or the first thing that is wrong with it. Never raises.

    ``file`` is what errors are to name. A text that pins anything twice is wrong, as one with an unknown key is: a hal0
    that understands the half of a lock would run something else than was locked.
    """
    documents, errors = parse_toml(file, text)
    if errors:
        return ManifestError(file, errors[0].line, errors[0].message, hint=_HINT)
    document = documents[0] if documents else Document(file, {})
    try:
        found = _Whole.model_validate(document.data)
    except ValidationError as error:
        return _wrong(document, error)
    lock = Lock(
        {model.name: _model(model) for model in found.model}, {image.reference: _image(image) for image in found.image}
    )
    if (len(lock.models), len(lock.images)) != (len(found.model), len(found.image)):
        return ManifestError(file, 1, "pins a model or an image twice", hint=_HINT)
    return lock


def _wrong(document: Document, error: ValidationError) -> ManifestError:
    detail = error.errors(include_url=False, include_context=False)[0]
    path = tuple(detail["loc"])
    if path == ("version",) and "version" in document.data:
        message = f"{document.data['version']!r} is not {VERSION}, the only version that this hal0 knows"
    else:
        message = detail["msg"][:1].lower() + detail["msg"][1:]
    return ManifestError(document.file, document.line_of(path), message, key=show_path(path), hint=_HINT)


def _model(found: _Model) -> ModelPin:
    files = tuple(FilePin(file.name, file.sha256, file.size) for file in found.files)
    return ModelPin(found.source, files, found.commit)


def _image(found: _Image) -> ImagePin:
    return ImagePin(found.digest or "", found.id or "")


def lock_text(lock: Lock) -> str:
    """Return a lock as the text of its file: the same lock always gives the same text."""
    return "\n".join(_lines(lock)) + "\n"


def _lines(lock: Lock) -> Iterator[str]:
    yield _HEAD
    yield f"version = {VERSION}"
    for name, model in sorted(lock.models.items()):
        yield from ("", "[[model]]", f"name = {_quoted(name)}", f"source = {_quoted(model.source)}")
        if model.commit:
            yield f"commit = {_quoted(model.commit)}"
        yield "files = ["
        yield from (f"    {_file(file)}," for file in model.files)
        yield "]"
    for reference, image in sorted(lock.images.items()):
        yield from ("", "[[image]]", f"reference = {_quoted(reference)}")
        yield f"digest = {_quoted(image.digest)}" if image.digest else f"id = {_quoted(image.id)}"


def _file(file: FilePin) -> str:
    size = "" if file.size is None else f", size = {file.size}"
    return f"{{ name = {_quoted(file.name)}, sha256 = {_quoted(file.sha256)}{size} }}"


def _quoted(text: str) -> str:
    """Return a text as TOML writes it: as JSON does, but for one character more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
