from __future__ import annotations

import json

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Data, host_facts, manifest_sets
from written import block_yaml, flow_yaml

from hal0.core.documents import Document, KeyPath, parse_file
from hal0.core.validate import validate


def only(file: str, text: str) -> Document:
    documents, errors = parse_file(file, text)
    assert not errors
    assert len(documents) == 1
    return documents[0]


def only_error(file: str, text: str) -> str:
    errors = parse_file(file, text)[1]
    assert len(errors) == 1
    return str(errors[0])


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('kind = "Slot"\n\nname = "a"', {("kind",): 1, ("name",): 3}),
        ("[limits]\nmemory = 1", {("limits",): 1, ("limits", "memory"): 2}),
        ("limits = { memory = 1, cpus = 2 }\nx = 1", {("limits", "memory"): 1, ("x",): 2}),
        ("\nlimits.memory = 1\nlimits . cpus = 2", {("limits", "memory"): 2, ("limits", "cpus"): 3}),
        ("\n\"a.b\" = 1\n'c d' = 2", {("a.b",): 2, ("c d",): 3}),
        ('[ "a.b" . c ]\nd = 1', {("a.b", "c"): 1, ("a.b", "c", "d"): 2}),
        ('["a]b"]\nc = 1\n[d]', {("a]b", "c"): 2, ("d",): 3}),
        ("[a.b]\nc = 1\n[a]\nd = 1", {("a",): 1, ("a", "b", "c"): 2, ("a", "d"): 4}),
        ("[[a]]\nx = 1\n[[a]]\nx = 2", {("a",): 1, ("a", 0): 1, ("a", 0, "x"): 2, ("a", 1, "x"): 4}),
        ("[[a]]\n[a.b]\nx = 1\n[[a]]\n[a.b]\nx = 2", {("a", 0, "b", "x"): 3, ("a", 1, "b", "x"): 6}),
        ("[[a]]\n[[a.b]]\n[[a.b]]\nx = 1", {("a", 0, "b", 1, "x"): 4}),
        ('a = """\nb = 1\n[c]\n"""\nd = 1', {("a",): 1, ("d",): 5, ("b",): 0, ("c",): 0}),
        ("a = '''\n\"\"\"\n[c]\n'''\nd = 1", {("d",): 5, ("c",): 0}),
        ('a = """\n\\""" [c]\n[e]\n"""\nd = 1', {("d",): 5, ("e",): 0}),
        ('a = """one"""\nb = """two""""\nc = """"""\nd = 1', {("b",): 2, ("c",): 3, ("d",): 4}),
        ("a = [\n  'x = 1',\n  'y',\n]\nb = 1", {("a",): 1, ("a", 1): 1, ("b",): 5}),
        ("a = [\n  [1]\n]\nb = 1", {("b",): 4}),
        ("a = [ # ]\n  '[', \"]\",\n]\nb = 1", {("b",): 4}),
        ("# don't \"\"\" count\na = 1 # nor '''\nb = 2", {("a",): 2, ("b",): 3}),
        ("a = \"'''\"\nb = 2", {("b",): 2}),
        ("\ta\t=\t1\n\t[b]\n\tc = 1", {("a",): 1, ("b", "c"): 3}),
        ("a = 1\r\n\r\n[b]\r\nc = 1\r\n", {("b",): 3, ("b", "c"): 4}),
        ("\ufeffa = 1\nb = 2", {("a",): 1, ("b",): 2}),
        ("# \u2028 \x85 are no line breaks\na = 1", {("a",): 2}),
    ],
)
def test_toml_keys_have_the_line_they_are_written_on(text: str, lines: dict[KeyPath, int]) -> None:
    found = only("a.toml", text)
    unwritten = {path for path, line in lines.items() if not line}
    assert {path: found.line_of(path) for path in lines} == {path: line or 1 for path, line in lines.items()}
    assert not unwritten & set(found.lines)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("kind: Slot\n\nname: a", {("kind",): 1, ("name",): 3}),
        ("limits:\n  memory: 1\n  cpus: 2", {("limits",): 1, ("limits", "cpus"): 3}),
        ("limits: {memory: 1,\n  cpus: 2}", {("limits", "memory"): 1, ("limits", "cpus"): 2}),
        ("args:\n- a\n# b\n- c", {("args", 0): 2, ("args", 1): 4}),
        ("args: [a,\n b]", {("args", 0): 1, ("args", 1): 2}),
        ("a:\n  - b: 1\n    c: 2", {("a", 0): 2, ("a", 0, "c"): 3}),
        ("a: |\n  b: 1\n  c\nd: >-\n  e\nf: 1", {("d",): 4, ("f",): 6}),
        ('"a b": "x\n  y"\nc: 1', {("a b",): 1, ("c",): 3}),
        ("a: &x {b: 1}\nc: *x", {("a", "b"): 1, ("c",): 2, ("c", "b"): 1}),
        ("a: &x\n  b: 1\nc:\n  <<: *x\n  d: 2", {("c", "d"): 5, ("c", "b"): 4}),
        ("a: 1\r\nb: 2\r\n", {("b",): 2}),
        ("\ufeffa: 1\nb: 2", {("a",): 1, ("b",): 2}),
        ("%YAML 1.2\n---\na: 1", {("a",): 3}),
        ("1: a\n2.5: b", {("1",): 1, ("2.5",): 2}),
    ],
)
def test_yaml_keys_have_the_line_they_are_written_on(text: str, lines: dict[KeyPath, int]) -> None:
    found = only("a.yaml", text)
    assert {path: found.line_of(path) for path in lines} == lines


def test_a_key_that_was_not_written_has_the_line_of_what_it_is_missing_from() -> None:
    found = only("a.yaml", "\nname: a\nlimits:\n  cpus: 1\n")
    assert [found.line_of(path) for path in [("limits", "memory"), ("limits", "cpus", 3), ("model",), ()]] == [
        3,
        4,
        2,
        2,
    ]


def test_yaml_holds_many_documents_each_with_its_line() -> None:
    documents, errors = parse_file("a.yaml", "# one\na: 1\n---\n---\n# two\nb:\n  c: 2\n...\n---\nd: 3\n")
    assert not errors
    assert [document.data for document in documents] == [{"a": 1}, {"b": {"c": 2}}, {"d": 3}]
    assert [document.line for document in documents] == [2, 6, 10]
    assert documents[1].line_of(("b", "c")) == 7


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n", "\ufeff"])
@pytest.mark.parametrize("file", ["a.toml", "a.yaml", "a.yml"])
def test_a_file_without_content_has_no_documents_and_no_errors(file: str, text: str) -> None:
    assert parse_file(file, text) == ([], [])


@pytest.mark.parametrize("file", ["a.toml", "a.yaml"])
def test_anchors_dates_and_big_trees_come_as_plain_data(file: str) -> None:
    toml = 'a = 2024-01-02\nb = [1, 2.5, true, "x"]\n'
    yaml = "a: 2024-01-02\nb: &x [1, 2.5, true, 'x']\n"
    data = only(file, toml if file.endswith("toml") else yaml).data
    assert data == {"a": "2024-01-02", "b": [1, 2.5, True, "x"]}
    assert [type(value) for value in data["b"]] == [int, float, bool, str]


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("a.toml", "a = 1\nb = \n", "a.toml:2: "),
        ("a.toml", "a = 1\na = 2\n", "a.toml:2: "),
        ("a.toml", "[a]\n[b]\n[a]\n", "a.toml:3: "),
        ("a.toml", "a = [1,\n", "a.toml:2: "),
        ("a.toml", "\n\na = 'x\n", "a.toml:4: "),
        ("a.toml", "a = 1\rb = 2", "a.toml:1: "),
        ("a.toml", "a = '\0'", "a.toml:1: "),
        ("a.toml", "a = inf", "a.toml:1: is not a finite number"),
        ("a.toml", "\n[a]\nb = [0,\n 0xfffffffffffffffff]", "a.toml:3: is a number beyond 64 bits"),
        ("a.toml", "a = " + "[" * 2000 + "]" * 2000, "a.toml:1: "),
        ("a.yaml", "a: 1\nb: [\n", "a.yaml:3: expected the node content, but found '<stream end>'"),
        ("a.yaml", "a:\n\tb: 1\n", "a.yaml:2: found character '\\t' that cannot start any token"),
        ("a.yaml", "a: b: c\n", "a.yaml:1: mapping values are not allowed here"),
        ("a.yaml", "a: *b\n", "a.yaml:1: found undefined alias 'b'"),
        ("a.yaml", "a: 1\n---\n- b\n", "a.yaml:3: a document must be a mapping (begin with: kind: Slot)"),
        ("a.yaml", "just text\n", "a.yaml:1: a document must be a mapping (begin with: kind: Slot)"),
        ("a.yaml", "a:\n- 1\n- .nan", "a.yaml:3: is not a finite number"),
        ("a.yaml", 'a: 1\nb: "\\ud800"', "a.yaml:2: holds half a character (a lone surrogate)"),
        ("a.yaml", '"\\ud800": 1', "a.yaml:1: holds half a character (a lone surrogate)"),
        ("a.yaml", "&x\na: *x\n", "a.yaml:1: is not YAML: is nested too deeply"),
        ("a.yaml", "a: " + "[" * 300 + "]" * 300, "a.yaml:1: is not YAML: is nested too deeply"),
        ("a.yaml", "a: !!bool maybe", "a.yaml:1: is not YAML: 'maybe'"),
        ("a.yaml", "a: 2024-99-99", "a.yaml:1: is not YAML: month must be in 1..12"),
    ],
)
def test_what_cannot_be_parsed_is_an_error_at_its_line(file: str, text: str, error: str) -> None:
    assert only_error(file, text).startswith(error)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "x: 1\na: {b: 1, b: 2}\n",
        'a: "\\UFFFFFFFF"',
        "a: !!omap [x]",
        "? [[a]]\n: b",
        "{[[a]]: b}",
        "a: '\0'",
        "%YAML 9.9\n---\na: 1",
    ],
)
def test_yaml_that_its_parser_stumbles_over_is_an_error(text: str) -> None:
    assert only_error("a.yaml", text).startswith(("a.yaml:1: ", "a.yaml:2: "))


def test_aliases_that_unfold_without_end_are_an_error() -> None:
    rows = "".join(f"a{row}: &a{row} [*a{row - 1}, *a{row - 1}, *a{row - 1}]\n" for row in range(1, 40))
    assert only_error("a.yaml", "a0: &a0 [1, 2]\n" + rows) == "a.yaml:1: is not YAML: more than 100000 keys"


def test_the_documents_before_a_broken_one_are_kept() -> None:
    documents, errors = parse_file("a.yaml", "a: 1\n---\nb: [\n---\nc: 1\n")
    assert [document.data for document in documents] == [{"a": 1}]
    assert len(errors) == 1


FRAGMENTS = [
    *(
        "a",
        "kind",
        "Slot",
        "1",
        ".",
        ":",
        ": ",
        "-",
        "- ",
        "--- ",
        "...",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        ",",
        "&x",
        "*x",
    ),
    *(
        "!!",
        "!!set ",
        "!!omap ",
        "!!int ",
        "!!binary ",
        "!!timestamp ",
        "<<",
        "|",
        ">",
        "? ",
        "%YAML 1.1",
        "~",
        "#",
        "@",
    ),
    *("'", '"', "'''", '"""', "\\", "\\u", "\\ud800", "\\U", "=", " = ", "\n", "\r\n", "\r", "\t", "  ", "\ufeff"),
    *("\0", "\x85", "\u2028", "é", "9" * 30, "1e999", "0x", "0o8", "2024-13-01", "nan", ".inf", "12:30:45"),
]
texts = st.text(max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)
suffixes = st.sampled_from(["toml", "yaml"])


def check(file: str, text: str) -> None:
    """Parse it, or report our error, never anything else: then it can be shown, kept and sent on."""
    documents, errors = parse_file(file, text)
    _, invalid = validate(documents)
    last = len(text.splitlines()) + 1
    assert all(error.file == file and 0 <= error.line <= last and error.message for error in [*errors, *invalid])
    assert all(1 <= line <= last for document in documents for line in [document.line, *document.lines.values()])
    json.dumps([document.data for document in documents], allow_nan=False, ensure_ascii=False).encode()
    "".join(str(error) for error in [*errors, *invalid]).encode()


@settings(max_examples=300, deadline=None)
@given(suffixes, texts)
def test_any_text_is_parsed_or_reported(suffix: str, text: str) -> None:
    check(f"a.{suffix}", text)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str, list[Data]]:
    """Return a file of valid manifests, in either syntax, and what it says."""
    datas = draw(manifest_sets(draw(host_facts()), max_slots=2))
    if draw(st.booleans()):
        data = draw(st.sampled_from(datas))
        return "a.toml", tomlkit.dumps(data), [data]
    return "a.yaml", draw(st.sampled_from([block_yaml, flow_yaml]))(datas), datas


@settings(max_examples=40, deadline=None)
@given(written())
def test_valid_manifests_are_read_as_they_were_meant_in_both_syntaxes(file: tuple[str, str, list[Data]]) -> None:
    name, text, datas = file
    documents, errors = parse_file(name, text)
    good, invalid = validate(documents)
    assert not [*errors, *invalid]
    assert [document.data for document in documents] == datas
    assert len(good) == len(datas)


@settings(max_examples=60, deadline=None)
@given(written(), st.data())
def test_valid_manifests_with_a_slip_of_the_hand_are_parsed_or_reported(
    file: tuple[str, str, list[Data]], data: st.DataObject
) -> None:
    name, text, _ = file
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    check(name, text[:start] + data.draw(texts) + text[end:])
