from __future__ import annotations

import io
from typing import Any

from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant
from hypothesis import given
from hypothesis import strategies as st

from hal0.host.dbus_reader import Reader

NAMES = [f"Property{'x' * length}" for length in range(9)]
VALUES = st.one_of(
    st.integers(0, 255).map(lambda value: Variant("y", value)),
    st.booleans().map(lambda value: Variant("b", value)),
    st.integers(-(2**15), 2**15 - 1).map(lambda value: Variant("n", value)),
    st.integers(0, 2**64 - 1).map(lambda value: Variant("t", value)),
    st.floats(allow_nan=False).map(lambda value: Variant("d", value)),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(lambda value: Variant("s", value)),
    st.just(Variant("o", "/a/b")),
    st.just(Variant("g", "a{sv}")),
    st.binary().map(lambda value: Variant("ay", value)),
    st.lists(st.text("abc")).map(lambda value: Variant("as", value)),
    st.lists(st.integers(0, 2**64 - 1)).map(lambda value: Variant("at", value)),
    st.lists(st.tuples(st.text("ab"), st.booleans()).map(list)).map(lambda value: Variant("a(sb)", value)),
    st.dictionaries(st.text("ab"), st.integers(0, 9)).map(lambda value: Variant("a{su}", value)),
    st.tuples(st.integers(0, 9), st.text("ab")).map(lambda value: Variant("(us)", list(value))),
    st.text("ab").map(lambda value: Variant("v", Variant("s", value))),
)
PROPERTIES = st.dictionaries(st.sampled_from(NAMES), VALUES)


def _message(before: str, properties: dict[str, Variant]) -> bytes:
    body = [before, properties, ["after"]]
    reply = Message(message_type=MessageType.METHOD_RETURN, reply_serial=1, serial=2, signature="sa{sv}as", body=body)
    return bytes(reply._marshall(False))  # type: ignore[no-untyped-call]


def _read(reader: Any) -> Any:
    return reader.unmarshall().body


@given(st.text("abcdefgh", max_size=8), PROPERTIES, st.frozensets(st.sampled_from(NAMES)))
def test_what_is_kept_is_read_as_dbus_next_reads_it(
    before: str, properties: dict[str, Variant], kept: frozenset[str]
) -> None:
    data = _message(before, properties)
    whole = _read(Unmarshaller(io.BytesIO(data)))  # type: ignore[no-untyped-call]
    wanted = {name: value for name, value in whole[1].items() if name in kept}
    assert _read(Reader(io.BytesIO(data), kept)) == [before, wanted, ["after"]]


def test_dictionaries_of_properties_inside_one_that_is_kept_are_filtered_too() -> None:
    data = _message("", {"Outer": Variant("a{sv}", {"Kept": Variant("s", "yes"), "Left": Variant("u", 1)})})
    (_, properties, _) = _read(Reader(io.BytesIO(data), frozenset({"Outer", "Kept"})))
    assert properties["Outer"].value == {"Kept": Variant("s", "yes")}


def test_a_message_that_comes_in_parts_is_read_when_it_is_whole() -> None:
    class Slow(io.BytesIO):
        turn = 0

        def read(self, size: int | None = -1) -> Any:
            self.turn += 1
            return super().read(min(size or 0, 7)) if self.turn % 2 else None

    data = _message("x", {"Kept": Variant("as", ["a", "b"]), "Left": Variant("t", 7)})
    reader, found = Reader(Slow(data), frozenset({"Kept"})), None
    while found is None:
        found = reader.unmarshall()  # type: ignore[no-untyped-call]
    assert found.body == ["x", {"Kept": Variant("as", ["a", "b"])}, ["after"]]
