"""A request's body, read once and edited in its source: what nobody asked to change goes on as it came."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

# A member of the object: its name, and where in the text its value begins and ends.
Member: TypeAlias = tuple[str, int, int]
# From where to where in the text something goes, and what comes in its place.
Cut: TypeAlias = tuple[int, int, str]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_SPACE = r"[ \t\n\r]*"
_NAME = rf'"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"{_SPACE}:{_SPACE}'
_END = rf"\}}{_SPACE}\Z"
_first_name = re.compile(rf"{_SPACE}\{{{_SPACE}(?:{_NAME}|{_END})").match
_next_name = re.compile(rf"{_SPACE}(?:,{_SPACE}{_NAME}|{_END})").match
KEEP_ALIVE = "keep_alive"
_MODEL = b'"model"'
_ESCAPED = b"\\u006"  # every letter of it, written as an escape, begins so
_model_is = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*(?=")').search
_decoder = json.JSONDecoder(parse_constant=_refuse)
# What raw_decode wraps: the wrapper costs as much as a short value does.
_value: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class _Members(msgspec.Struct):
    """What decides where a request goes. Everything else in a body is checked and passed over, which costs little."""

    model: Any = None
    keep_alive: Any = msgspec.UNSET


_members_of = msgspec.json.Decoder(_Members).decode


@dataclass(slots=True)
class Body:
    """A JSON body as a client sent it: its bytes, and what they say. What is no object says nothing.

    ``source`` is its text in UTF-8.
    """

    raw: bytes
    text: str
    source: bytes
    _members: _Members
    is_object: bool = True
    _data: Mapping[str, Any] | None = None

    @property
    def model(self) -> str | None:
        """The model that is asked for; None where none is named."""
        model = self._members.model
        return model if model and isinstance(model, str) else None

    @property
    def keep_alive(self) -> object | None:
        """How long the model shall stay loaded, as the client wrote it."""
        said: object = self._members.keep_alive
        return None if said is msgspec.UNSET else said

    @property
    def data(self) -> Mapping[str, Any]:
        """Everything that it says. Raises ``ValueError`` where it is nested too deeply to be read."""
        if self._data is None:
            self._data = _decoded(self.text)
        return self._data

    def edited(
        self, *, model: str | None, defaults: Mapping[str, Any], strip: Collection[str], set_: Mapping[str, Any]
    ) -> bytes:
        """Return the body with other members at its top level; ``raw`` itself where that makes no difference.

        ``strip`` takes away what the client sent. ``defaults`` adds what it did not send: null counts as sent, and
        so does what is stripped. ``set_`` replaces or adds, and ``model`` does so above all. Where a name was sent
        twice, both copies go. Raises ``ValueError`` or ``TypeError`` for a new value that is none of JSON's.
        """
        if not self.is_object:
            return self.raw
        if model and not set_ and self._keeps_all(defaults, strip) and (renamed := self._renamed(model)):
            return renamed
        sent = self.data
        members = _members(self.text)
        given = set_ if model is None else {**set_, "model": model}
        new = {name: value for name, value in given.items() if not self._says(members, name, value)}
        stale = self.data.keys() & new
        if strip:
            stale.update(name for name in strip if name in self.data and name not in given)
        if defaults:
            new.update((name, value) for name, value in defaults.items() if name not in sent and name not in given)
        return _spliced(self, _cuts(self.text, members, new, stale)) if new or stale else self.raw

    def _keeps_all(self, defaults: Mapping[str, Any], strip: Collection[str]) -> bool:
        """Whether nothing is to be taken out or added; most slots leave all but ``keep_alive`` as it is."""
        if not defaults and tuple(strip) == (KEEP_ALIVE,):
            return self._members.keep_alive is msgspec.UNSET
        return self.data.keys().isdisjoint(strip) and defaults.keys() <= self.data.keys()

    def _renamed(self, model: str) -> bytes | None:
        """Return the body with another model, where there is no doubt which of its bytes name it.

        A member is walked over only where the name comes twice or may be written with escapes: most requests cost one
        search.
        """
        old, raw = self._members.model, self.source
        if not isinstance(old, str) or raw.count(_MODEL) != 1 or _ESCAPED in raw:
            return None
        found = _model_is(raw)
        value = _quoted(old)
        if found is None or not raw.startswith(value, found.end()):
            return None
        if old == model:
            return self.raw
        return raw[: found.end()] + _quoted(model) + raw[found.end() + len(value) :]

    def _says(self, members: list[Member], name: str, value: object) -> bool:
        """Whether the client sent just this value, and once."""
        if name not in self.data or self.data[name] != value:
            return False
        is_once = [member[0] for member in members].count(name) == 1
        return is_once and _encode(self.data[name]) == _encode(value)  # Python takes 1 for True and for 1.0


def parse(raw: bytes) -> Body:
    """Read a body. Raises ``ValueError``, which says where, for what is no JSON by RFC 8259; NaN is none.

    UTF-16 and UTF-32 are read as well, and a byte order mark is; what is edited becomes UTF-8 without one.
    """
    try:
        members = _members_of(raw)
    except (msgspec.DecodeError, RecursionError):  # rare, or wrong: the standard library has the last word
        return _parse_whole(raw)
    return Body(raw, raw.decode(), raw, members)  # msgspec does not look whether what it passes over is UTF-8


def _parse_whole(raw: bytes) -> Body:
    text = raw.decode(json.detect_encoding(raw))
    data = _decoded(text)
    if not isinstance(data, dict):
        return Body(raw, text, text.encode(), _Members(), is_object=False, _data={})
    members = _Members(data.get("model"), data.get(KEEP_ALIVE, msgspec.UNSET))
    return Body(raw, text, text.encode(), members, _data=data)


def _decoded(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@lru_cache(256)
def _quoted(name: str) -> bytes:
    return _encode(name).encode()


def _members(text: str) -> list[Member]:
    """Return the members of an object in their order, with every copy of a name."""
    members: list[Member] = []
    found = _first_name(text)
    while found and found[1] is not None:
        name = _value(text, found.start(1) - 1)[0] if "\\" in found[1] else found[1]
        _, end = _value(text, found.end())
        members.append((name, found.end(), end))
        found = _next_name(text, end)
    return members


def _cuts(text: str, members: list[Member], new: dict[str, Any], stale: Collection[str]) -> list[Cut]:
    """Return the cuts that take out the ``stale`` members and put the ``new`` in their places, or else in front."""
    cuts: list[Cut] = []
    first = front = before = text.index("{") + 1
    is_kept = False
    for name, start, end in members:
        if name in stale and name not in new:
            if is_kept:
                cuts.append((before, end, ""))
            else:
                front = text.find(",", end) + 1 or text.rindex("}")
        else:
            is_kept = True
            if name in stale:
                cuts.append((start, end, _encode(new.pop(name))))
        before = end
    added = _encode(new)[1:-1] + ("," if is_kept else "") if new else ""
    return [(first, front, added), *cuts] if added or front > first else cuts


def _spliced(body: Body, cuts: list[Cut]) -> bytes:
    """Return the text with the cuts made, in UTF-8. What is behind the last one is copied, not encoded."""
    text, pieces, at, offset = body.text, list[bytes](), 0, 0
    for start, end, new in cuts:
        run = text[at:start].encode()
        pieces += (run, new.encode())
        at, offset = end, offset + len(run) + len(text[start:end].encode())
    return b"".join((*pieces, body.source[offset:]))
