"""``hal0 validate`` and ``hal0 schema``."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from hal0.cli import show
from hal0.cli.local import settings
from hal0.core.documents import ManifestError
from hal0.core.kinds import ManifestUnion
from hal0.core.spec import Desired
from hal0.core.wire import VERSION, problem_json
from hal0.host.store import Store
from hal0.loop.assembly import make_source


def validate(path: Path | None, *, runtime: str, scope: str | None, as_json: bool) -> int:
    """Print what is wrong with the manifests, and return the exit code."""
    import asyncio

    found = settings(path, runtime, scope)
    with closing(Store(Path("/nonexistent"), read_only=True)) as nothing_applied:
        desired = asyncio.run(make_source(found, nothing_applied).load())
    problems = [replace(problem, file=_near(problem.file)) for problem in desired.problems]
    if as_json:
        slots = sorted(desired.slots)
        document = {"version": VERSION, "slots": slots, "problems": [problem_json(problem) for problem in problems]}
        show.say([json.dumps(document, indent=2)])
    else:
        show.say(_verdict(found.root, desired, problems))
    return 1 if problems else 0


def schema() -> None:
    """Print the JSON Schema of a manifest of any kind."""
    tree = TypeAdapter(ManifestUnion).json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "hal0 manifest"}
    show.say([json.dumps(head | tree, indent=2)])


def _verdict(root: Path, desired: Desired, problems: list[ManifestError]) -> list[str]:
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        return [*(str(problem) for problem in problems), f"{len(problems)} {noun}"]
    return [f"{root}: {len(desired.slots)} slots, {len(desired.models)} models: valid"]


def _near(file: str) -> str:
    """Return a path as one would type it from here."""
    relative = os.path.relpath(file)
    return file if relative.startswith("..") or file.startswith("seed:") else relative
