"""The types of manifest keys: what a name, a path, a size or a duration may look like."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from hal0.core.quantity import parse_duration, parse_size

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LAST_PORT = 65535
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "cookie"})
_HOP_HEADERS = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"})
_BODY_HEADERS = frozenset({"content-length", "content-type", "content-encoding", "accept-encoding"})
_OWN_HEADERS = _KEY_HEADERS | _HOP_HEADERS | _BODY_HEADERS | {"host", "x-request-id"}
_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"


def _no_control(value: str) -> str:
    if any(char in value for char in "\0\n\r"):
        raise ValueError("must be one line, without NUL")
    if any(ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF for char in value):  # noqa: PLR2004  (Unicode's)
        raise ValueError("holds a noncharacter, which systemd does not take for UTF-8")
    return value


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:8080`` or ``[::1]:8080``; port 0 is any free one. Raises ``ValueError``."""
    host, colon, port = text.rpartition(":")
    is_plain = bool(host) and ":" not in host and not any(char.isspace() for char in host)
    is_ipv6 = host.startswith("[") and host.endswith("]")
    if not colon or not (is_plain or is_ipv6) or not port.isdecimal() or int(port) > LAST_PORT:
        raise ValueError(f"{text!r} is no address to listen on: write it like 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _listen(value: str) -> str:
    parse_listen(value)
    return value


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    is_plain = value.isascii() and value.isprintable() and " " not in value
    if parts.scheme not in {"http", "https"} or not parts.hostname or not is_plain:
        raise ValueError("is no address of an API: write it like https://api.example.com/v1")  # it may hold a secret
    if "@" in parts.netloc or "?" in value or "#" in value:
        raise ValueError("must be a plain address: a key belongs to api_key, further headers to headers")
    if parts.port == 0:  # and it raises ValueError for what is no port
        raise ValueError("0 is no port")
    return value.rstrip("/")


def _source_url(value: str) -> str:
    parts = urlsplit(value)
    is_plain = value.isascii() and value.isprintable() and " " not in value
    if parts.scheme not in {"http", "https"} or not parts.hostname or not is_plain:
        raise ValueError("is no address of a file: write it like https://example.com/models/small.gguf")
    if "@" in parts.netloc or "#" in value:
        raise ValueError("must be an address without a password and without a #")
    if parts.port == 0:  # and it raises ValueError for what is no port
        raise ValueError("0 is no port")
    return value


def _repo_file(value: str) -> str:
    if any(part in {"", ".", ".."} for part in value.split("/")):
        raise ValueError("is no file of a repository: write it like folder/model.gguf")
    return value


def _variable(value: str) -> str:
    if not _ENV_NAME.fullmatch(value):
        raise ValueError("is not the name of an environment variable")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    return value


def _credential(value: str) -> str:
    if not value.strip(".") or "/" in value:
        raise ValueError("is not the name of a credential")
    return value


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a header")
    if value.lower() in _OWN_HEADERS:
        raise ValueError(f"{value!r} is hal0's to send" + (": see api_key" if value.lower() in _KEY_HEADERS else ""))
    return value


def _mount_path(value: str) -> str:
    if not value.strip("/") or ":" in value:
        raise ValueError(f"{value!r} can't be mounted into a container: name a path without a colon, and not /")
    return value


def _env(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an environment variable")
    return value


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    for key, item in value.items():
        if (place := _not_json(item, key)) is not None:
            raise ValueError(f"{place} is not a finite number, and JSON has no other")
    return value


def _not_json(value: object, place: str) -> str | None:
    """Return the place of the first number within a value that JSON does not have; None where there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return place
    inner: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        inner = ((f"{place}.{key}", item) for key, item in value.items())
    if isinstance(value, list):
        inner = ((f"{place}[{at}]", item) for at, item in enumerate(value))
    return next((found for at, item in inner if (found := _not_json(item, at)) is not None), None)


def _command_line(value: object) -> object:
    """Numbers in an argument list are written without quotes by everyone."""
    if isinstance(value, list):
        return [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in value]
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN, description="lower-case letters, digits and hyphens, up to 40")]
ModelId = Annotated[str, Field(pattern=_ID_PATTERN, description="a model id; slashes and colons are fine")]
Line = Annotated[str, AfterValidator(_no_control)]
# Where a secret is. What does not fit is not said again: it may be the secret itself.
Variable = Annotated[Line, AfterValidator(_variable)]
AbsolutePath = Annotated[Line, AfterValidator(_absolute)]
Credential = Annotated[Line, AfterValidator(_credential)]
MountPath = Annotated[Line, AfterValidator(_mount_path)]
MountFolder = Annotated[MountPath, AfterValidator(_absolute)]
SourceUrl = Annotated[Line, AfterValidator(_source_url)]
RepoName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*$")]
RepoFile = Annotated[MountPath, AfterValidator(_repo_file)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\s]*$", description="an image reference")]
Args: TypeAlias = Annotated[list[Line], BeforeValidator(_command_line)]
Parameters = Annotated[dict[str, Any], AfterValidator(_finite)]
Env = Annotated[dict[str, Line], AfterValidator(_env)]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    Field(description="seconds, or a text like 90s, 15m, 1h30m"),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=str | int),
    Field(description="bytes, or a text like 512Mi, 8Gi"),
]
Port = Annotated[int, Field(ge=1, le=LAST_PORT, strict=True)]
Priority = Annotated[int, Field(ge=-100, le=100, strict=True)]
Tokens = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Listen = Annotated[str, AfterValidator(_listen)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
EnginePath = Annotated[str, Field(pattern=r"^/[!-~]*$")]
HeaderName = Annotated[str, AfterValidator(_header_name)]
