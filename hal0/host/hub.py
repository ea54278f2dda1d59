"""The Hugging Face hub: which file a name means today. The only module that imports huggingface_hub.

It is slow to import, so it is imported in the thread of a transfer. The hub is asked for names; the bytes are fetched
by hal0 (decision 21). HF_ENDPOINT, HF_TOKEN and the token that `hf auth login` left are heeded. Nothing is told.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hal0.core.model import Source
from hal0.errors import StepFailed
from hal0.host.webfile import Remote, reason, shown

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # it is read when the package is imported

from huggingface_hub import HfApi, ModelInfo, get_hf_file_metadata, get_session, get_token, hf_hub_url
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_NAMES = 4
_SILENCE_S = 10.0
_NOT_THERE = 404


@dataclass(frozen=True, slots=True)
class Located:
    """A file of the hub at one commit. ``commit`` is empty where an endpoint does not say it."""

    commit: str
    remote: Remote


@dataclass(frozen=True, slots=True)
class RepoPart:
    """A file of a repository. ``blob`` is git's id of its content, for those that have no sha256; may be empty."""

    path: str
    remote: Remote
    blob: str = ""


def look(source: Source) -> Located:
    """Return what a source means now: the commit that its revision is at, and the file's address, size and sha256.

    The address is that of the commit, so that a branch that moves can't mix two files. Raises ``StepFailed``.
    """
    endpoint, token = _endpoint(), ""
    try:
        _guard_client()
        token = get_token() or ""
        url = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=endpoint)
        found = get_hf_file_metadata(url, token=token or False, endpoint=endpoint)
    except Exception as error:  # noqa: BLE001 - those of its HTTP client are not named by the package
        raise _failure(error, source, endpoint, token) from None
    commit, etag = found.commit_hash or "", found.etag or ""
    remote = Remote(
        url=hf_hub_url(source.repo, source.file, revision=commit or source.revision, endpoint=endpoint),
        size=found.size,
        sha256=etag if _SHA256.fullmatch(etag) else "",
        token=token,
        gated=_terms(source, endpoint),
    )
    return Located(commit, remote)


def repository(source: Source) -> tuple[RepoPart, ...]:
    """Return the files of a source's repository, as they are at one commit. Raises ``StepFailed``."""
    endpoint, token = _endpoint(), ""
    try:
        _guard_client()
        token = get_token() or ""
        found = _info(source, endpoint, token)
    except Exception as error:  # noqa: BLE001 - those of its HTTP client are not named by the package
        raise _failure(error, source, endpoint, token) from None
    commit, terms = found.sha or source.revision, _terms(source, endpoint)
    return tuple(
        RepoPart(
            each.rfilename,
            Remote(
                url=hf_hub_url(source.repo, each.rfilename, revision=commit, endpoint=endpoint),
                size=each.size,
                sha256=each.lfs.sha256 if each.lfs else "",
                token=token,
                gated=terms,
            ),
            "" if each.lfs else each.blob_id or "",
        )
        for each in found.siblings or ()
    )


def _info(source: Source, endpoint: str, token: str) -> ModelInfo:
    hub = HfApi(endpoint=endpoint, token=token or False)
    return hub.model_info(source.repo, revision=source.revision, files_metadata=True)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def _guard_client() -> None:
    """Have the package's client send tokens to the endpoint alone, and wait for no answer for ever.

    It takes huggingface.co for everyone's home, and sets no limit to lists.
    """
    hooks = get_session().event_hooks
    if _strip not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _strip, _bound]}


def _strip(request: Any) -> None:
    home, asked = urlsplit(_endpoint()), urlsplit(str(request.url))
    if (asked.scheme, asked.netloc.lower()) != (home.scheme, home.netloc.lower()):
        request.headers.pop("Authorization", None)


def _bound(request: Any) -> None:
    given = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        each: _SILENCE_S if given.get(each) is None else given[each] for each in ("connect", "read", "write", "pool")
    }


def _failure(error: Exception, source: Source, endpoint: str, token: str) -> StepFailed:
    """Return an error in hal0's words: the package's own hold addresses, and advice for its own commands."""
    host, name = urlsplit(endpoint).netloc.rpartition("@")[2], f"{source.repo}/{source.file}"
    match error:
        case GatedRepoError():
            return StepFailed(f"{source.repo} is gated, and {host} did not let hal0 in", hint=_terms(source, endpoint))
        case RepositoryNotFoundError():
            seen = "that HF_TOKEN may see" if token else "that may be seen without a token"
            hint = f"Mend the model's source; for a private one: {_terms(source, endpoint)}"
            return StepFailed(f"{host} has no repository {source.repo} {seen}", hint=hint)
        case RevisionNotFoundError():
            hint = "Mend the revision of the model's source: a branch, a tag or a commit."
            return StepFailed(f"{source.repo} at {host} has no revision {source.revision}", hint=hint)
        case EntryNotFoundError():
            return _no_file(source, endpoint, token)
        case HfHubHTTPError() if error.response.status_code == _NOT_THERE:
            return _no_file(source, endpoint, token)
        case HfHubHTTPError():
            hint = _terms(source, endpoint) if error.response.status_code in {401, 403} else "Try again later."
            return StepFailed(f"{host} answered {error.response.status_code} for {name}", hint=hint)
        case OfflineModeIsEnabled():
            hint = "Unset HF_HUB_OFFLINE where hal0 is started."
            return StepFailed(f"{name} can't be looked up: HF_HUB_OFFLINE is set", hint=hint)
        case HFValidationError():
            return StepFailed(f"{source.repo} is no name of a repository", hint="Write it like org/name.")
    hint = "Look at the network; a mirror is named by HF_ENDPOINT where hal0 is started."
    return StepFailed(f"{host} can't be asked for {name}: {reason(error)}", hint=hint)


def _no_file(source: Source, endpoint: str, token: str) -> StepFailed:
    if not source.file:
        return StepFailed(f"{source.repo} at {source.revision} can't be listed: it is not there", hint="Mend its name.")
    hint = "Mend the file of the model's source."
    if names := _close_names(source, endpoint, token):
        hint = f"Mend the file of the model's source. There are: {', '.join(names)}."
    return StepFailed(f"{source.repo} at {source.revision} has no file {source.file}", hint=hint)


def _close_names(source: Source, endpoint: str, token: str) -> list[str]:
    """Return names of the repository that may be meant; none where it does not tell."""
    try:
        names = [each.rfilename for each in _info(source, endpoint, token).siblings or ()]
    except Exception:  # noqa: BLE001 - a hint is not worth an error
        return []
    models = [name for name in names if name.endswith((".gguf", ".bin", ".safetensors"))]
    return difflib.get_close_matches(source.file, models, n=_MOST_NAMES, cutoff=0.0)


def _terms(source: Source, endpoint: str) -> str:
    where = f"{shown(endpoint)}/{source.repo}"
    return f"accept its terms at {where}, and set HF_TOKEN, where hal0 is started, to a token that may read it."
