"""Errors as clients read them: OpenAI's envelope, or Anthropic's on its paths. docs/errors.md lists the codes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hal0.core.schema import UpstreamApi

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
JSON = (b"content-type", b"application/json")
_CHALLENGES = {401: [(b"www-authenticate", b'Bearer realm="hal0"')]}


@dataclass(eq=False)
class Refusal(Exception):
    """Why a request gets no answer from an engine. ``retry_after`` is in seconds; None: it is of no use to come again.

    ``extra`` is put beside the message, for programs.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What a client's retries go by, and how it may say who it is."""
        told = [JSON, *_CHALLENGES.get(self.status, [])]
        if self.retry_after is None:
            return [*told, (b"x-should-retry", b"false")]
        return [*told, (b"retry-after", b"%d" % math.ceil(self.retry_after))]

    def body(self, api: UpstreamApi = UpstreamApi.OPENAI) -> bytes:
        """Return the error as one API has it."""
        return error_body(self.status, self.code, self.message, param=self.param, api=api, extra=self.extra)


def error_body(
    status: int,
    code: str,
    message: str,
    *,
    param: str | None = None,
    api: UpstreamApi = UpstreamApi.OPENAI,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the JSON of an error."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004  (5xx)
    if api is UpstreamApi.ANTHROPIC:
        body = {"type": "error", "error": {"type": kind, "message": message, "code": code, **(extra or {})}}
    else:
        body = {"error": {"message": message, "type": kind, "param": param, "code": code, **(extra or {})}}
    return json.dumps(body).encode()
