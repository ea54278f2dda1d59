"""``hal0 model …``: by the daemon where one runs, else in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hal0.cli import client, show
from hal0.cli.ask import asked, told
from hal0.cli.client import DaemonError
from hal0.cli.options import Options, who
from hal0.cli.progress import Progress
from hal0.core.quantity import show_size
from hal0.errors import UsageError

if TYPE_CHECKING:
    from hal0.loop.reconcile import Reconciler

_DIFFERS = 3
_NOT_NAMED = 1


def listed(options: Options, *, as_json: bool) -> int:
    """Print the table of models."""
    show.found(_models(options), list_text, as_json=as_json)
    return 0


def shown(options: Options, name: str, *, as_json: bool) -> int:
    """Print one model in full."""

    def own() -> dict[str, Any]:
        from hal0.loop import models

        return by_self(options, lambda reconciler: models.model(reconciler, name))

    show.found(asked(options, _path(name), own), show_text, as_json=as_json)
    return 0


def pulled(options: Options, model: str, name: str, *, as_json: bool) -> int:
    """Fetch a model, and show how far it is; 1 where a repository alone was named, and was listed."""
    is_ours = not client.is_running(options.scope)
    try:
        end = _watch(options, "pull", {"model": model, "name": name}, as_json=as_json)
    except KeyboardInterrupt:
        if not is_ours:
            show.hint(f"the daemon goes on fetching {model}: hal0 model list shows how far it is")
        raise
    if end["event"] == "offers":
        show.say([] if as_json else offers_text(end))
        show.hint("name one of them: nothing was fetched")
        return _NOT_NAMED
    if not as_json:
        show.say([f"{end['model']}: {'is there already' if end['was_here'] else 'fetched'}, {end['path']}"])
    return 0


def verified(options: Options, name: str, *, as_json: bool) -> int:
    """Hash a model's files; 3 where one is not what its manifest says."""
    end = _watch(options, "verify", {"model": name}, as_json=as_json)
    if not as_json:
        show.say(verify_text(end))
    return _DIFFERS if end["verified"] is False else 0


def removed(options: Options, name: str, *, force: bool, as_json: bool) -> int:
    """Remove a model's files."""
    if not force and not _confirmed(name):
        raise UsageError(f"the files of {name!r} stay: nothing was changed", hint="--force does not ask")

    def own() -> dict[str, Any]:
        from hal0.loop import models

        return by_self(options, lambda reconciler: models.remove(reconciler, name), writes=True)

    show.found(told(options, "DELETE", _path(name), {"who": who()}, own), remove_text, as_json=as_json)
    return 0


def scanned(options: Options, *, as_json: bool) -> int:
    """Print manifests for what no manifest declares."""
    found = _models(options)
    manifests = [model["manifest"] for model in found["models"] if model["manifest"]]
    if as_json:
        show.say([json.dumps({"version": found["version"], "manifests": manifests}, indent=2)])
        return 0
    show.say(manifests_text(manifests))
    if not manifests:
        show.hint(f"every model file below {found['model_dir']} is declared")
    return 0


def declared(options: Options, *, as_json: bool) -> int:
    """Write manifests for what no manifest declares."""

    def own() -> dict[str, Any]:
        from hal0.loop import declare

        return by_self(options, lambda reconciler: declare.scan(reconciler, who=who()))

    found = told(options, "POST", "/api/models/scan", {"who": who()}, own)
    show.found(found, declared_text, as_json=as_json)
    if found["warning"]:
        show.warn(found["warning"])
    return 0


def list_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield the table of models; what no manifest declares is marked."""
    head = ("NAME", "STATE", "SIZE", "QUANT", "PARAMS", "CONTEXT", "SLOTS")
    rows = [
        (
            model["name"] + ("" if model["declared"] else " *"),
            _state(model),
            show_size(model["size_bytes"] or model["partial_bytes"] or None),
            model["quantization"] or "-",
            show_count(model["parameters"]),
            str(model["context_length"] or "-"),
            ", ".join(model["slots"]) or "-",
        )
        for model in found["models"]
    ]
    yield from show.table(head, rows)
    if not all(model["declared"] for model in found["models"]):
        folders = ", ".join((found["model_dir"], *found["model_dirs"]))
        yield f"* found in {folders}, and not declared: hal0 model scan --write declares what is"


def show_text(model: dict[str, Any]) -> Iterator[str]:
    """Yield one model in full."""
    yield f"{model['name']}  {_state(model)}"
    source = model["source"] or {}
    facts = {
        "declared": model["place"] or "no: hal0 model scan --write declares it",
        "aliases": ", ".join(model["aliases"]),
        "source": source.get("url") or " ".join(source.values()),
        "fetch": model["fetch"] if source else "",
        "path": model["path"],
        "files": str(len(model["files"])) if len(model["files"]) > 1 else "",
        "size": show_size(model["size_bytes"]) if model["size_bytes"] else "",
        "half there": show_size(model["partial_bytes"]) if model["partial_bytes"] else "",
        "vision part": model["mmproj"],
        "title": model["title"],
        "architecture": model["architecture"],
        "parameters": show_count(model["parameters"]) if model["parameters"] else "",
        "quantization": model["quantization"],
        "context": model["context_length"],
        "chat template": _clipped(model["chat_template"]),
        "header": model["unread"],
        "sha256": model["sha256"],
        "verified": {True: "yes", False: f"no, the file has {model['found_sha256']}", None: ""}[model["verified"]],
        "slots": ", ".join(model["slots"]),
    }
    yield from (f"  {key:<14} {value}" for key, value in facts.items() if value)


def remove_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield what was removed."""
    yield f"{found['model']}: {show_size(found['freed_bytes'])} freed, {found['path']}"


def verify_text(end: dict[str, Any]) -> Iterator[str]:
    """Yield what a model's files are, and whether that is what they should be."""
    yield from (f"{file['sha256']}  {file['path']}" for file in end["files"])
    if end["verified"] is None:
        yield f"{end['model']}: remembered; its manifest states no sha256 to compare"
    else:
        said = f"as its {end['by']} says" if end["verified"] else f"its {end['by']} says {end['sha256']}"
        yield show.paint(f"{end['model']}: {said}", "32" if end["verified"] else "31")


def manifests_text(manifests: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield manifests as a YAML file."""
    from hal0.core.edit_yaml import declaring

    yield from declaring(manifests).splitlines()


def declared_text(found: dict[str, Any]) -> Iterator[str]:
    """Yield what was declared, and where."""
    yield from (f"{manifest['name']}: declared in {found['file']}" for manifest in found["manifests"])
    if not found["manifests"]:
        yield f"every model file below {found['model_dir']} is declared"
    elif found["commit"]:
        yield f"commit {found['commit']}"


def offers_text(offered: dict[str, Any]) -> Iterator[str]:
    """Yield the models of a repository, each with what fetches it."""
    rows = [(show_size(each["size_bytes"]), f"hal0 model pull {each['pull']}") for each in offered["files"]]
    yield from show.table(("SIZE", "TO FETCH IT"), rows)


def show_count(count: int | None) -> str:
    """Return a number of parameters as ``8.2B`` or ``135M``; ``-`` for none."""
    if count is None:
        return "-"
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"  # noqa: PLR2004  (three digits)
    return str(count)


def _state(model: dict[str, Any]) -> str:
    transfer = model["transfer"]
    if transfer and transfer["total_bytes"]:
        return f"{model['state']} {100 * transfer['done_bytes'] // transfer['total_bytes']}%"
    return str(model["state"])


def _clipped(text: str) -> str:
    first, _, more = text.strip().partition("\n")
    return f"{first[:60]} ..." if more or len(first) > 60 else first  # noqa: PLR2004  (a line of a terminal)


def _confirmed(name: str) -> bool:
    from typer import confirm

    return confirm(f"Remove the files of model {name!r}?", err=True)


def _models(options: Options) -> dict[str, Any]:
    def own() -> dict[str, Any]:
        from hal0.loop import models

        return by_self(options, models.models)

    return asked(options, "/api/models", own)


def _watch(options: Options, verb: str, said: dict[str, str], *, as_json: bool) -> dict[str, Any]:
    """Have a model pulled or verified, show how far that is, and return the last event."""
    with Progress(as_json=as_json) as progress:
        if client.is_running(options.scope):
            body = {**said, "who": who()}
            for line in client.lines(options.scope, "POST", f"/api/models/{verb}", body):
                progress.show(event_of(json.loads(line)))
        else:
            by_self(options, lambda reconciler: _shown(_act(reconciler, said), progress), writes=verb == "verify")
    return progress.last


def _act(reconciler: Reconciler, said: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
    from hal0.loop import declare, models

    if "name" in said:
        return declare.pull(reconciler, said["model"], name=said["name"], who=who())
    return models.verify(reconciler, said["model"])


async def _shown(events: AsyncIterator[dict[str, Any]], progress: Progress) -> dict[str, Any]:
    async for event in events:
        progress.show(event)
    return progress.last


def event_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of the daemon's. Raises the daemon's error where it is one."""
    if event["event"] == "error":
        raise DaemonError(event["message"], hint=event["hint"], exit_code=event["exit_code"])
    return event


def by_self(
    options: Options, act: Callable[[Reconciler], Awaitable[dict[str, Any]]], *, writes: bool = False
) -> dict[str, Any]:
    """Do what is asked in this process; where it ``writes``, what it learns is kept."""
    import asyncio

    from hal0.cli.local import looking, owning

    async def run() -> dict[str, Any]:
        async with owning(options) if writes else looking(options) as reconciler:
            reconciler.desired = await reconciler.source.load()  # the host need not be looked at
            try:
                return await act(reconciler)
            finally:
                await reconciler.actor.transfers.close()

    return asyncio.run(run())


def _path(name: str) -> str:
    return f"/api/models/{quote(name, safe='/')}"
