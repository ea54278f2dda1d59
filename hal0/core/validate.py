"""Documents to manifests: every error of every document, with its place and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from hal0.core.documents import Document, KeyPath, ManifestError
from hal0.core.kinds import KINDS, Manifest

M_co = TypeVar("M_co", bound=Manifest, covariant=True)


@dataclass(frozen=True)
class Located(Generic[M_co]):
    """A valid manifest and where it was written. ``at`` is the key that it stands below, where it has no document."""

    manifest: M_co
    document: Document
    at: KeyPath = ()

    def error(self, message: str, *path: str | int, hint: str = "") -> ManifestError:
        """Return an error about one key of this manifest."""
        return ManifestError(
            self.document.file,
            self.line_of(*path),
            message,
            key=show_path((*self.at, *path)),
            hint=hint,
            kind=self.manifest.kind,
            name=self.manifest.name,
        )

    @property
    def source(self) -> str:
        """``file:line`` of the manifest."""
        return f"{self.document.file}:{self.line_of()}"

    def line_of(self, *path: str | int) -> int:
        """Return the line of one of its keys, or of the nearest key above it."""
        return self.document.line_of((*self.at, *path))

    @property
    def data(self) -> Mapping[str, Any]:
        """The keys that are written for it."""
        found: Any = self.document.data
        for part in self.at:
            found = found[part]
        return found if isinstance(found, Mapping) else {}


def validate(documents: Iterable[Document]) -> tuple[list[Located[Manifest]], list[ManifestError]]:
    """Return the valid manifests and everything that is wrong with the others."""
    good: list[Located[Manifest]] = []
    errors: list[ManifestError] = []
    for document in documents:
        found = _validate(document)
        if isinstance(found, Located):
            good.append(found)
        else:
            errors.extend(found)
    return good, errors


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word; empty where none is close."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def show_path(path: KeyPath) -> str:
    """Return a key path as an operator would say it: ``limits.memory``, ``args[2]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _validate(document: Document) -> Located[Manifest] | list[ManifestError]:
    kind = document.data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        message = "every manifest needs a kind" if kind is None else f"{kind!r} is not a kind"
        hint = did_you_mean(kind, KINDS) or "one of " + ", ".join(KINDS)
        return [ManifestError(document.file, document.line_of(("kind",)), message, key="kind", hint=hint)]
    model = KINDS[kind]
    try:
        return Located(model.model_validate(document.data), document)
    except ValidationError as error:
        name = document.data.get("name")
        return [
            _error(document, model, detail, kind, name if isinstance(name, str) else "")
            for detail in error.errors(include_url=False)
        ]


def _error(
    document: Document, model: type[BaseModel], detail: Mapping[str, Any], kind: str, name: str
) -> ManifestError:
    path: KeyPath = tuple(detail["loc"])
    message, hint = _explain(model, path, detail)
    return ManifestError(
        document.file, document.line_of(path), message, key=show_path(path), hint=hint, kind=kind, name=name
    )


def _explain(model: type[BaseModel], path: KeyPath, detail: Mapping[str, Any]) -> tuple[str, str]:
    given = detail.get("input")
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            known = _fields_at(model, path[:-1])
            return "unknown key", did_you_mean(path[-1], known) or "known: " + ", ".join(known)
        case "missing":
            return "is required", ""
        case "enum":
            choices = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
            return f"{given!r} is not one of {', '.join(choices)}", did_you_mean(given, choices)
        case "string_pattern_mismatch":
            return f"{given!r} does not fit {context['pattern']}", ""
        case "value_error":
            return str(context["error"]), ""
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {given!r}", ""


def _fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that a nested part of a manifest knows."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(str(part))
        options = (field.annotation, *get_args(field.annotation)) if field else ()
        nested = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if not nested:
            return []
        current = nested[0]
    return list(current.model_fields)
