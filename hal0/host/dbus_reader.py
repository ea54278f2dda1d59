"""Reads D-Bus messages, and of a dictionary of properties only what is wanted: a unit has 400, hal0 looks at 21.

This module, ``dbus`` and ``systemd`` are the only ones that know dbus_next.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from dbus_next._private.constants import LITTLE_ENDIAN
from dbus_next._private.unmarshaller import Unmarshaller

if TYPE_CHECKING:
    from dbus_next.signature import SignatureType

_SIZES = dict(zip(b"ynqbiuhxtd", (1, 2, 2, 4, 4, 4, 4, 8, 8, 8), strict=True))
_ALIGNMENTS = {**_SIZES, **dict(zip(b"sogva({", (4, 4, 1, 1, 4, 8, 8), strict=True))}
_ARRAY, _TEXTS = ord("a"), frozenset(b"so")
_LENGTHS = {True: Struct("<I").unpack_from, False: Struct(">I").unpack_from}


class Reader(Unmarshaller):
    """dbus-next's reader, but for dictionaries of properties: those that are not ``kept`` are stepped over."""

    def __init__(self, stream: Any, kept: frozenset[str]) -> None:
        super().__init__(stream)  # type: ignore[no-untyped-call]
        self._kept = {name.encode(): name for name in kept}

    def read_array(self, type_: SignatureType) -> Any:
        """Read an array. All of the message is in the buffer by now."""
        if type_.signature != "a{sv}":
            return super().read_array(type_)  # type: ignore[no-untyped-call]
        begin = (self.offset + 3) & -4
        self.offset = (begin + 4 + 7) & -8
        end = self.offset + self._length(begin)
        found: dict[str, Any] = {}
        while self.offset < end:
            name = self._kept.get(self._name())
            if name is None and self._skip():
                continue
            value = self.read_variant()  # type: ignore[no-untyped-call]
            if name is not None:
                found[name] = value
        return found

    def _name(self) -> bytes:
        begin = ((self.offset + 7) & -8) + 4
        end = begin + self._length(begin - 4)
        self.offset = end + 1
        return bytes(self.buf[begin:end])

    def _skip(self) -> bool:
        """Step over a variant and return True; where its end is not plain to see, stay and return False."""
        buffer, begin = self.buf, self.offset
        first = buffer[begin + 1]
        at = begin + buffer[begin] + 2
        at = (at + _ALIGNMENTS[first] - 1) & -_ALIGNMENTS[first]
        if first in _TEXTS:
            self.offset = at + self._length(at) + 5
        elif first == _ARRAY:
            element = _ALIGNMENTS[buffer[begin + 2]]
            self.offset = ((at + 4 + element - 1) & -element) + self._length(at)
        elif first in _SIZES:
            self.offset = at + _SIZES[first]
        else:
            return False
        return True

    def _length(self, at: int) -> int:
        length: int = _LENGTHS[self.endian == LITTLE_ENDIAN](self.buf, at)[0]
        return length
