from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.dispatch.body import Body, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.sampled_from([0.7, 1.0, -0.0]) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
# Few names, so that what is sent and what is edited meet often.
NAMES = st.sampled_from(["model", "stream", "stop", "seed", "é", "", 'a "b"', "\\"]) | st.text(max_size=2)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)
SPACES = st.sampled_from(["", "", " ", "\n\t", "\r\n  "])
# Spellings that are lost when JSON is read and written again.
SPELLINGS = st.sampled_from(['"\\u0061\\/"', "1.50e1", "1E400", "-0", '{ "b":1 ,"b": [ ] }', '"é😀"', "[1,2 , 3]"])
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"]


@dataclass(frozen=True)
class Edit:
    model: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    strip: tuple[str, ...] = ()
    set_: Mapping[str, Any] = field(default_factory=dict)

    def of(self, body: Body) -> bytes:
        return body.edited(model=self.model, defaults=self.defaults, strip=self.strip, set_=self.set_)

    @property
    def names(self) -> set[str]:
        return {*self.defaults, *self.strip, *self.set_, *(["model"] if self.model is not None else [])}


EDITS = st.builds(
    Edit,
    model=st.none() | st.sampled_from(["chat", "é"]),
    defaults=OBJECTS,
    strip=st.lists(NAMES, max_size=3).map(tuple),
    set_=OBJECTS,
)


def escaped(name: str) -> str:
    units = name.encode("utf-16-be", "surrogatepass")
    return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)) + '"'


@dataclass(frozen=True)
class Member:
    name: str
    source: str


@st.composite
def members(draw: st.DrawFn) -> Member:
    name = draw(NAMES)
    spelled = draw(st.sampled_from([json.dumps(name), json.dumps(name, ensure_ascii=False), escaped(name)]))
    value = draw(SPELLINGS | VALUES.map(json.dumps))
    return Member(name, f"{spelled}{draw(SPACES)}:{draw(SPACES)}{value}")


@st.composite
def objects(draw: st.DrawFn) -> tuple[list[Member], str]:
    sent = draw(st.lists(members(), max_size=6))
    inside = ",".join(draw(SPACES) + member.source + draw(SPACES) for member in sent)
    return sent, draw(SPACES) + "{" + inside + draw(SPACES) + "}" + draw(SPACES)


def written(value: object) -> str:
    """Tell True from 1, and 1 from 1.0."""
    return json.dumps(value, sort_keys=True)


def meant(sent: dict[str, Any], edit: Edit) -> dict[str, Any]:
    left = {name: value for name, value in sent.items() if name not in edit.strip}
    added = {name: value for name, value in edit.defaults.items() if name not in sent}
    model = {} if edit.model is None else {"model": edit.model}
    return {**left, **added, **edit.set_, **model}


@given(objects(), EDITS, st.sampled_from(ENCODINGS))
def test_an_edited_body_says_what_is_meant(sent: tuple[list[Member], str], edit: Edit, encoding: str) -> None:
    raw = sent[1].encode(encoding)
    edited = edit.of(parse(raw))
    assert written(json.loads(edited)) == written(meant(json.loads(sent[1]), edit))


@given(objects(), EDITS)
def test_what_is_not_edited_keeps_its_spelling_and_its_order(sent: tuple[list[Member], str], edit: Edit) -> None:
    edited = edit.of(parse(sent[1].encode())).decode()
    at = 0
    for member in sent[0]:
        if member.name not in edit.names:
            at = edited.index(member.source, at) + len(member.source)


@given(objects(), EDITS)
def test_no_copy_of_what_was_edited_is_left(sent: tuple[list[Member], str], edit: Edit) -> None:
    pairs = json.loads(edit.of(parse(sent[1].encode())), object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert all(names.count(name) <= 1 for name in {*edit.strip, *edit.set_, *(["model"] if edit.model else [])})


@given(OBJECTS, st.data())
def test_an_edit_that_changes_nothing_returns_the_very_bytes(sent: dict[str, Any], data: st.DataObject) -> None:
    raw = json.dumps(sent, indent=2).encode()
    same = {name: sent[name] for name in sent if data.draw(st.booleans())}
    edit = Edit(
        model=sent["model"] if isinstance(sent.get("model"), str) else None,
        defaults=dict.fromkeys(sent, "other"),
        strip=("not sent", *same),
        set_=same,
    )
    assert edit.of(parse(raw)) is raw


def test_only_the_model_of_a_body_is_written_anew() -> None:
    raw = b'{ "seed": 1.50e1 , "model" : "chat", "messages": [ ] }'
    assert Edit(model="smollm2").of(parse(raw)) == b'{ "seed": 1.50e1 , "model" : "smollm2", "messages": [ ] }'


def test_what_is_added_comes_in_front() -> None:
    raw = b'{ "model" : "chat" }'
    assert Edit(defaults={"temperature": 0.7, "n": 1}).of(parse(raw)) == b'{"temperature":0.7,"n":1, "model" : "chat" }'


@pytest.mark.parametrize(
    ("strip", "left"),
    [
        ("a", b'{ "b" : 2 , "c" : 3 }'),
        ("b", b'{ "a" : 1 , "c" : 3 }'),
        ("c", b'{ "a" : 1 , "b" : 2 }'),
        ("ab", b'{ "c" : 3 }'),
        ("bc", b'{ "a" : 1 }'),
        ("ac", b'{ "b" : 2 }'),
        ("abc", b"{}"),
    ],
)
def test_what_is_stripped_goes_with_one_comma(strip: str, left: bytes) -> None:
    assert Edit(strip=tuple(strip)).of(parse(b'{ "a" : 1 , "b" : 2 , "c" : 3 }')) == left


def test_a_body_that_loses_its_only_member_is_empty() -> None:
    assert Edit(strip=("a",)).of(parse(b'{"a":{"b":{}}}')) == b"{}"
    assert Edit(strip=("a",), set_={"n": 1}).of(parse(b'{"a":{"b":{}}}')) == b'{"n":1}'


def test_null_was_sent_so_no_default_comes_in_its_place() -> None:
    raw = b'{"stop":null}'
    assert Edit(defaults={"stop": "x"}).of(parse(raw)) is raw


def test_what_is_stripped_is_not_filled_by_a_default_but_by_what_is_set() -> None:
    edit = Edit(strip=("seed", "stop"), defaults={"seed": 1}, set_={"stop": "x"})
    assert json.loads(edit.of(parse(b'{"seed":7,"stop":"y"}'))) == {"stop": "x"}


def test_the_model_that_is_given_counts_above_all() -> None:
    edit = Edit(model="a", defaults={"model": "b"}, strip=("model",), set_={"model": "c"})
    assert edit.of(parse(b'{"model":"d"}')) == b'{"model":"a"}'


def test_a_name_sent_twice_means_the_last_and_both_are_replaced() -> None:
    body = parse(b'{"model":"first","n":1,"mod\\u0065l":"last"}')
    assert body.model == "last"
    assert Edit(model="chat").of(body) == b'{"model":"chat","n":1}'
    assert Edit(model="last").of(body) == b'{"model":"last","n":1}'


def test_true_is_not_one() -> None:
    assert Edit(set_={"n": 1}).of(parse(b'{"n":true}')) == b'{"n":1}'
    assert Edit(set_={"n": 1}).of(parse(b'{"n":1.0}')) == b'{"n":1}'


def test_a_nested_member_is_not_the_body_s_own() -> None:
    raw = b'{"metadata":{"model":"x","stream":true},"text":"\\"model\\":\\"x\\","}'
    body = parse(raw)
    assert body.model is None
    assert Edit(strip=("model", "stream")).of(body) is raw


def test_what_is_passed_over_is_checked_all_the_same() -> None:
    for broken in (b'{"model":"chat","a":"\xff"}', b'{"model":"chat","a":[1,}', b'{"model":"chat","a":NaN}'):
        with pytest.raises(ValueError):  # noqa: PT011  (whatever it says)
            parse(broken)


def test_a_body_nested_so_deep_that_it_can_only_be_passed_over_is_none() -> None:
    shallow, deep = (b'{"model":"chat","a":' + b"[" * depth + b"]" * depth + b"}" for depth in (100, 100_000))
    assert Edit(model="chat", defaults={"n": 1}).of(parse(shallow)).startswith(b'{"n":1,"model":"chat"')
    with pytest.raises(ValueError, match="too deep"):
        parse(deep)
    for depth in range(800, 1001, 5):
        raw = b'{"model":"chat","a":' + b"[" * depth + b"]" * depth + b"}"
        try:
            body = parse(raw)
        except ValueError:
            continue
        assert edited_deeper(body, 60) in {None, b'{"n":1,' + raw[1:]}


def edited_deeper(body: Body, calls: int) -> bytes | None:
    """Edit with less of the interpreter's stack left than there was for reading; None where that is too little."""
    if calls:
        return edited_deeper(body, calls - 1)
    try:
        return Edit(model="chat", defaults={"n": 1}).of(body)
    except ValueError:
        return None


@pytest.mark.parametrize("raw", [b"[]", b' ["model"]', b'"chat"', b"7", b"null", b"\xff\xfe7\x00"])
def test_what_is_no_object_says_nothing_and_stays_as_it_came(raw: bytes) -> None:
    body = parse(raw)
    assert body.data == {}
    assert Edit(model="chat", defaults={"n": 1}, set_={"m": 2}, strip=("model",)).of(body) is raw


@pytest.mark.parametrize("raw", [b"[]", b"{}", b'{"model":7}', b'{"model":null}', b'{"model":""}', b'{"model":["a"]}'])
def test_what_names_no_model_names_none(raw: bytes) -> None:
    assert parse(raw).model is None


@pytest.mark.parametrize(("raw", "value"), [(b'{"keep_alive":"5m"}', "5m"), (b'{"keep_alive":-1}', -1), (b"{}", None)])
def test_keep_alive_is_told_as_it_was_sent(raw: bytes, value: object) -> None:
    assert parse(raw).keep_alive == value


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "char 0"),
        (b"{", "char 1"),
        (b'{"a":1', "char 6"),
        (b'{"a" 1}', "char 5"),
        (b'{"a":}', "char 5"),
        (b'{"a":1 "b":2}', "char 7"),
        (b'{"a":1,}', "char"),
        (b'{"a":1}{', "char 7"),
        (b'{"a":"\n"}', "char 6"),
        (b'{"a":"\\x"}', "char 6"),
        (b'{"a\n":1}', "char 3"),
        (b'{"a":[1,{"b":nul}]}', "char 13"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":[-Infinity]}', "-Infinity"),
        (b'{"a":"\xff"}', "position 6"),
        (b'{"a":"\xed\xa0\x80"}', "position 6"),  # half a surrogate pair is not UTF-8
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_a_value_error_that_says_where(raw: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(raw)


def refuse(constant: str) -> None:
    raise ValueError(constant)


def read(raw: bytes) -> Any:
    """Return what the standard library reads, and ``refuse`` where it takes none."""
    try:
        return json.loads(raw.decode(json.detect_encoding(raw)), parse_constant=refuse)
    except ValueError:
        return refuse


NEARLY_JSON = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", ",", ":", '"', '"a"', '"b":', "\\", "\\u0061", "1", "-", ".5", "e3", "null", " "]
    )
    | st.sampled_from(["\t", "\n", "\x00", "\x1f", "\xa0", "é", "NaN", "{}", '{"a":1', "\ufeff"]),
    max_size=12,
).map("".join)


@given(
    st.binary(max_size=40)
    | NEARLY_JSON.map(str.encode)
    | NEARLY_JSON.map(lambda inside: f'{{"a":{inside}}}'.encode())
    | st.tuples(objects(), st.sampled_from(ENCODINGS)).map(lambda both: both[0][1].encode(both[1]))
)
def test_a_body_is_read_as_the_standard_library_reads_it_or_is_a_value_error(raw: bytes) -> None:
    said = read(raw)
    if said is refuse:
        with pytest.raises(ValueError):  # noqa: PT011  (whatever it says)
            parse(raw)
    else:
        assert written(parse(raw).data) == written(said if isinstance(said, dict) else {})
