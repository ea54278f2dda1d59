"""Puts other manifests in the place of those below a root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hal0.host import edits


def rewrite(base: Path, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Make the files below a folder ``after`` where they are ``before`` now; both map paths below it to texts.

    A kill leaves each file old or new. Files go last: until then what moved is declared twice, which removes nothing.
    Raises ``Conflict`` for a file that leads outside the folder, before anything is changed, and for one that can't be
    written or was changed meanwhile.
    """
    places = {file: edits.place(base, base / file) for file in {*before, *after}}
    for file, text in sorted(after.items()):
        if edits.read(places[file]) != text:  # a link may have been written through another name
            places[file].parent.mkdir(parents=True, exist_ok=True)
            edits.replace(places[file], before.get(file), text)
    for file in sorted(set(before) - set(after)):
        edits.replace(base / file, before[file], None)
