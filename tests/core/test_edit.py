from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import tomlkit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import Data, host_facts, manifest_sets
from written import block_yaml, flow_yaml

from hal0.core.documents import Document, parse_file
from hal0.core.edit import EditRefused, Scalar, Value, appended, edited, new_manifest, without
from hal0.core.validate import validate

TOML = """\
# the small one
kind = "Slot"   # what it is
name = 'chat'

model   =  "m1"    # "quoted" # twice
args = [
  "--a", # one
  "model = 1",
]
port = 8081

[limits]
memory = "8Gi"
port = 1
"""
YAML_TEXT = """\
# head
kind: Model
name: chat
path: a.gguf
---
# the slot
kind:   Slot
name: chat
model:  m1     # ours
args: [--a,  b]
port: 8081
limits:
    memory: 8Gi
    port: 1
---
kind: Slot
name: other
model: m1
"""


def chat(file: str, text: str, **changes: Value | None) -> str:
    return edited(file, text, "Slot", "chat", changes)


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"model": "m2"}, 'model   =  "m1"    #', 'model   =  "m2"    #'),
        ({"port": 9000}, "]\nport = 8081", "]\nport = 9000"),
        ({"port": None}, "port = 8081\n", ""),
        ({"run": "never"}, "port = 8081\n", 'port = 8081\nrun = "never"\n'),
        ({"model": 'a"b\\c é'}, '"m1"', r'"a\"b\\c é"'),
        ({"model": "m1"}, "", ""),
        ({"device": None}, "", ""),
        ({"profile": "p", "port": None}, "port = 8081\n", 'profile = "p"\n'),
    ],
)
def test_toml_is_changed_where_it_is_meant(changes: dict[str, Scalar | None], before: str, after: str) -> None:
    assert chat("a.toml", TOML, **changes) == TOML.replace(before, after, 1)


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"model": "m2"}, "m1     # ours", "m2     # ours"),
        ({"model": "qwen/qwen3:8b"}, "m1     # ours", "qwen/qwen3:8b     # ours"),
        ({"model": "1e3"}, "m1     # ours", '"1e3"     # ours'),
        ({"model": "no: comment # here"}, "m1     # ours", '"no: comment # here"     # ours'),
        ({"port": 9000}, "port: 8081", "port: 9000"),
        ({"port": None}, "port: 8081\n", ""),
        ({"run": "never"}, "port: 8081\n", "port: 8081\nrun: never\n"),
    ],
)
def test_yaml_is_changed_where_it_is_meant(changes: dict[str, Scalar | None], before: str, after: str) -> None:
    assert chat("a.yaml", YAML_TEXT, **changes) == YAML_TEXT.replace(before, after, 1)


T = "kind = 'Slot'\nname = 'chat'"
Y = "kind: Slot\nname: chat"


@pytest.mark.parametrize(
    ("file", "text", "changes", "after"),
    [
        ("a.toml", T, {"port": 1}, f"{T}\nport = 1"),
        ("a.toml", f"{T}\nport = 1", {"port": None}, T),
        ("a.toml", f"model = 'a'\n{T}", {"model": "b"}, f"model = 'b'\n{T}"),
        ("a.toml", f"model = 'a'\n{T}", {"model": "b'c"}, f'model = "b\'c"\n{T}'),
        ("a.toml", '\t"kind" = "Slot"\n\tname="chat"\n', {"port": 1}, '\t"kind" = "Slot"\n\tname="chat"\n\tport = 1\n'),
        ("a.toml", f"{T}\r\n\n", {"port": 1}, f"{T}\r\nport = 1\r\n\n"),
        ("a.yaml", "kind: Slot\r\nname: chat", {"port": 1}, "kind: Slot\r\nname: chat\r\nport: 1"),
        ("a.yaml", f"{Y}\n# end\r\n", {"port": 1}, f"{Y}\nport: 1\n# end\r\n"),
        ("a.yaml", Y, {"port": 1}, f"{Y}\nport: 1"),
        ("a.yaml", f"{Y}\nport: 1", {"port": None}, Y),
        ("a.yaml", "  kind: Slot\n  name: chat # me\n", {"port": 1}, "  kind: Slot\n  name: chat # me\n  port: 1\n"),
        ("a.yaml", "{kind: Slot, name: chat}", {"port": 1}, "{kind: Slot, name: chat, port: 1}"),
        ("a.yaml", "{kind: Slot, port: 1, name: chat}", {"port": None}, "{kind: Slot, name: chat}"),
        ("a.yaml", "{kind: Slot, name: chat , port: 1 }", {"port": None}, "{kind: Slot, name: chat }"),
        ("a.yaml", '{"kind":"Slot","name":"chat"}', {"port": 1}, '{"kind":"Slot","name":"chat", port: 1}'),
        ("a.yaml", '{"name":"chat","kind":"Slot","port":1}', {"port": 2}, '{"name":"chat","kind":"Slot","port": 2}'),
        ("a.yaml", f"{Y}\nmodel: 'a'\n", {"model": "b"}, f"{Y}\nmodel: 'b'\n"),
        ("a.yaml", f"{Y}\nport:", {"port": 7}, f"{Y}\nport: 7"),
        ("a.yaml", f"{Y}\nport: null\n", {"port": None}, f"{Y}\n"),
        ("a.yaml", f"{Y}\nqueue: true\n", {"queue": 1}, f"{Y}\nqueue: 1\n"),
        ("a.yaml", f"{Y}\nabort: &k a\ndrift: *k\nmodel: m", {"model": "n"}, f"{Y}\nabort: &k a\ndrift: *k\nmodel: n"),
    ],
)
def test_it_is_written_as_the_file_is_written(
    file: str, text: str, changes: dict[str, Scalar | None], after: str
) -> None:
    assert chat(file, text, **changes) == after


TABLE: Value = {"model": "a:b", "args": ["--x", "c d"], "limits": {"cpus": 1.5}, "é": True}
IN_TOML = '{model = "a:b", args = ["--x", "c d"], limits = {cpus = 1.5}, "é" = true}'
IN_YAML = '{model: a:b, args: ["--x", "c d"], limits: {cpus: 1.5}, "é": true}'


@pytest.mark.parametrize(
    ("file", "text", "value", "after"),
    [
        ("a.toml", f"{T}\n", TABLE, f"{T}\nenv = {IN_TOML}\n"),
        ("a.toml", f"{T}\nenv = false # no\n", TABLE, f"{T}\nenv = {IN_TOML} # no\n"),
        ("a.toml", f"{T}\nenv = {{a = '}}#', b = {{}}}} # {{no}}\n", False, f"{T}\nenv = false # {{no}}\n"),
        ("a.toml", f"{T}\nenv={{ }}\nqueue = 1\n", {"a": 1}, f"{T}\nenv={{a = 1}}\nqueue = 1\n"),
        ("a.toml", f"{T}\nenv = {{a = 1}}\nqueue = 1\n", None, f"{T}\nqueue = 1\n"),
        ("a.yaml", f"{Y}\n", TABLE, f"{Y}\nenv: {IN_YAML}\n"),
        ("a.yaml", f"{Y}\nenv:   false # no\n", TABLE, f"{Y}\nenv:   {IN_YAML} # no\n"),
        ("a.yaml", f"{Y}\nenv: {{a: '}}#', b: [{{}}]}} # {{no}}\n", True, f"{Y}\nenv: true # {{no}}\n"),
        ("a.yaml", "{kind: Slot, name: chat, env: {a: 1}}", {"b": "x"}, "{kind: Slot, name: chat, env: {b: x}}"),
        ("a.yaml", f"{Y}\nenv: {{a: 1}}\nqueue: 1\n", None, f"{Y}\nqueue: 1\n"),
    ],
)
def test_a_table_on_one_line_is_written_and_replaced_whole(
    file: str, text: str, value: Value | None, after: str
) -> None:
    assert chat(file, text, env=value) == after
    assert value is None or chat(file, after, env=value) == after


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("a.toml", f"{T}\n[env]\na = 1\n", "env = {a = 2}"),
        ("a.toml", f"{T}\nenv.a = 1\n", "env = {a = 2}"),
        ("a.yaml", f"{Y}\nenv:\n  a: 1\n", "env: {a: 2}"),
        ("a.yaml", f"{Y}\nenv: {{a: 1,\n  b: 2}}\n", "env: {a: 2}"),
        ("a.yaml", f"{Y}\nset: &s {{a: 1}}\nenv: *s\n", "env: {a: 2}"),
    ],
)
def test_a_table_on_several_lines_is_refused_with_the_line_to_write(file: str, text: str, line: str) -> None:
    with pytest.raises(EditRefused) as caught:
        chat(file, text, env={"a": 2})
    assert caught.value.hint == f"make it {line}, by hand"


@pytest.mark.parametrize(("file", "text"), [("a.toml", TOML), ("a.yaml", YAML_TEXT)])
@pytest.mark.parametrize("changes", [{"model": "m2"}, {"run": "never"}, {"port": None}])
def test_line_ends_of_other_systems_and_a_mark_of_byte_order_stay(
    file: str, text: str, changes: dict[str, Scalar | None]
) -> None:
    foreign = "\ufeff" + text.replace("\n", "\r\n")
    assert chat(file, foreign, **changes) == "\ufeff" + chat(file, text, **changes).replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("file", "text", "key"),
    [
        ("a.toml", 'kind = "Slot"\nname = "chat"\nmodel = """\nm"""', "model"),
        ("a.toml", 'kind = "Slot"\nname = "chat"\nlimits.memory = 1', "limits"),
        ("a.toml", 'kind = "Slot"\nname = "chat"\n[limits]\nmemory = 1', "limits"),
        ("a.toml", 'kind = "Slot"\nname = "chat"\nmodel = 1979-05-27 07:32:00', "model"),
        ("a.yaml", "kind: Slot\nname: chat\nmodel: &x m\nrun: *x", "model"),
        ("a.yaml", "kind: Slot\nname: chat\nrun: &x m\nmodel: *x", "model"),
        ("a.yaml", "kind: Slot\nname: chat\nmodel: !!str m", "model"),
        ("a.yaml", "kind: Slot\nname: chat\nmodel: |\n  m\n", "model"),
        ("a.yaml", "kind: Slot\nname: chat\nmodel: a\n  b\n", "model"),
        ("a.yaml", "kind: Slot\nname: chat\nmodel:\n  m\n", "model"),
        ("a.yaml", "kind: Slot\nname: chat\nmodel: [m]\n", "model"),
        ("a.yaml", "kind: Slot\nname: chat\nmodel:\n", "model"),
        ("a.yaml", "kind: Slot\nname: chat\n? model\n: m\n", "model"),
    ],
)  # fmt: skip
def test_what_is_no_plain_value_on_one_line_is_refused_with_what_to_do(file: str, text: str, key: str) -> None:
    for value in ("new", None):
        with pytest.raises(EditRefused) as caught:
            chat(file, text, **{key: value})
        assert str(caught.value).startswith(f"{file}: ")
        assert "by hand" in caught.value.hint


def test_a_key_that_has_no_line_to_follow_is_refused_with_the_line_to_add() -> None:
    for file, text, line in (
        ("a.toml", 'kind = """Slot"""\nname = """chat"""\n', "port = 1"),
        ("a.yaml", "kind: !!str Slot\nname: !!str chat\n", "port: 1"),
    ):
        with pytest.raises(EditRefused) as caught:
            chat(file, text, port=1)
        assert caught.value.hint == f"add by hand: {line}"


@pytest.mark.parametrize(("file", "text"), [("a.toml", TOML), ("a.yaml", YAML_TEXT)])
@pytest.mark.parametrize("key", ["model", "zone"])
def test_a_value_that_the_syntax_cant_hold_is_refused(file: str, text: str, key: str) -> None:
    with pytest.raises(EditRefused, match="can't hold what it is to hold"):
        chat(file, text, **{key: "del\x7f\x00" if file.endswith("toml") else "c1 \x95"}, port=1)


def test_what_comes_from_elsewhere_cant_be_taken_out() -> None:
    text = "kind: Slot\nname: chat\nenv: &e {model: m}\n<<: *e\n"
    with pytest.raises(EditRefused, match="can't be edited safely"):
        chat("a.yaml", text, model=None)
    assert chat("a.yaml", text, model="n") == text.replace("name: chat\n", "name: chat\nmodel: n\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Slot\nname: [", "a.yaml:2: "),
        ("kind: Slot\nname: other", "a.yaml: Slot 'chat' is in it 0 times"),
        ("kind: Slot\nname: chat\n---\nkind: Slot\nname: chat", "a.yaml: Slot 'chat' is in it 2 times"),
    ],
)
def test_a_file_that_is_not_clear_is_refused(text: str, message: str) -> None:
    acts: list[Callable[[], object]] = [
        lambda: chat("a.yaml", text, port=1),
        lambda: without("a.yaml", text, "Slot", "chat"),
    ]
    for act in acts:
        with pytest.raises(EditRefused) as caught:
            act()
        assert str(caught.value).startswith(message)


def test_a_manifest_is_taken_out_of_its_file_and_the_others_stay() -> None:
    first, second, third = YAML_TEXT.split("---\n")
    assert without("a.yaml", YAML_TEXT, "Slot", "chat") == f"{first}---\n{third}"
    assert without("a.yaml", YAML_TEXT, "Slot", "other") == f"{first}---\n{second}"
    assert without("a.yaml", YAML_TEXT, "Model", "chat") == f"# head\n---\n{second}---\n{third}"


@pytest.mark.parametrize("text", ["kind: Slot\nname: chat\n", "---\n# nothing\n---\nkind: Slot\nname: chat\n---\n"])
def test_the_only_manifest_of_a_file_leaves_nothing(text: str) -> None:
    assert without("a.yaml", text, "Slot", "chat") is None


def test_an_empty_document_between_manifests_is_not_counted() -> None:
    text = "kind: Slot\nname: a\n---\n---\nkind: Slot\nname: chat\n---\n{kind: Slot, name: b}\n"
    assert without("a.yaml", text, "Slot", "chat") == "kind: Slot\nname: a\n---\n---\n{kind: Slot, name: b}\n"
    assert chat("a.yaml", text, port=1) == text.replace("name: chat\n", "name: chat\nport: 1\n")


def test_the_only_manifest_of_a_toml_file_leaves_nothing() -> None:
    assert without("a.toml", TOML, "Slot", "chat") is None


MORE: list[Data] = [
    {"kind": "Model", "name": "a", "source": {"repo": "org/repo", "file": "a, b.gguf"}},
    {"kind": "Model", "name": "yes", "path": "# no.gguf"},
]


@pytest.mark.parametrize("before", ["", "# only a word\n", YAML_TEXT, YAML_TEXT.rstrip(), YAML_TEXT + "---\n"])
def test_manifests_are_added_below_what_is_there(before: str) -> None:
    there, _ = parse_file("models.yaml", before)
    after = appended("models.yaml", before, MORE)
    assert after.startswith(before)
    documents, errors = parse_file("models.yaml", after)
    assert errors == []
    assert [document.data for document in documents] == [*(document.data for document in there), *MORE]


@pytest.mark.parametrize("text", ["a: [", "a: |\n  a block without its last line end"])
def test_nothing_is_added_to_what_cant_be_read(text: str) -> None:
    with pytest.raises(EditRefused):
        appended("models.yaml", text, MORE)
    with pytest.raises(EditRefused, match="holds one manifest"):
        appended("models.toml", 'kind = "Host"\n', MORE)


def test_a_new_slot_is_a_valid_manifest() -> None:
    text = new_manifest("Slot", {"name": "chat", "model": 'odd "name"', "port": 8081})
    assert text == 'kind = "Slot"\nname = "chat"\nmodel = "odd \\"name\\""\nport = 8081\n'
    (document,) = parse_file("a.toml", text)[0]
    assert document.data["model"] == 'odd "name"'


# Any manifests, however they are written.

KEYS = ("model", "port", "context_size", "profile", "device", "run", "note")
tables = st.dictionaries(
    st.sampled_from(["model", "a b", "é", "1", "no"]),
    st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
    | st.lists(st.text(max_size=3)),
    max_size=2,
)
values = (
    tables
    | st.none()
    | st.integers(-(2**40), 2**40)
    | st.text(max_size=12)
    | st.sampled_from(["m2", "no", "1", "a:b", "~"])
)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, str]:
    """Return a file of manifests as tools and people write them, comments, blank lines and odd line ends included."""
    datas: list[Data] = [*draw(manifest_sets(draw(host_facts()), max_slots=2))]
    if draw(st.booleans()):
        text, file = tomlkit.dumps(draw(st.sampled_from(datas))), "a.toml"
    else:
        text, file = draw(st.sampled_from([block_yaml, flow_yaml]))(datas), "a.yaml"
    lines = text.split("\n")
    for at in draw(st.lists(st.integers(0, len(lines) - 1), max_size=4, unique=True)):
        lines[at] += draw(st.sampled_from(["", "  # a note", "\n", "\n# a line: of [its, own"]))
    return file, draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def is_one_line_at_the_most(before: str, after: str) -> bool:
    """Return whether one line was put in, taken out or changed, or none: all others are the same byte for byte."""
    if not before.endswith("\n"):  # then the last line gets an end, where one is put below it
        end = "\r\n" if before.partition("\n")[0].endswith("\r") else "\n"
        before, after = before + end, after + end
    old, new = before.split("\n"), after.split("\n")
    shorter = min(len(old), len(new))
    head = next((at for at in range(shorter) if old[at] != new[at]), shorter)
    tail = next((at for at in range(shorter - head) if old[-1 - at] != new[-1 - at]), shorter - head)
    return max(len(old), len(new)) - head - tail <= 1


def drawn(data: st.DataObject, documents: list[Document]) -> int:
    """Return the place of one of the manifests; a Host may go without a name, and is not asked for."""
    return data.draw(st.sampled_from([at for at, item in enumerate(documents) if "name" in item.data]))


@settings(max_examples=150, deadline=None)
@given(texts(), st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3), st.data())
def test_an_edit_changes_the_wanted_keys_and_no_other_line_or_is_refused(
    file: tuple[str, str], changes: dict[str, Value | None], data: st.DataObject
) -> None:
    path, text = file
    before, errors = parse_file(path, text)
    assume(not errors and any("name" in item.data for item in before))
    at = drawn(data, before)
    try:
        after = edited(path, text, before[at].data["kind"], before[at].data["name"], changes)
    except EditRefused as refusal:
        assert refusal.hint  # noqa: PT017  (refusing is one of the two right ends)
        return
    read, errors = parse_file(path, after)
    wanted = {key: value for key, value in {**before[at].data, **changes}.items() if changes.get(key, "") is not None}
    assert not errors
    assert [json.dumps(item.data, sort_keys=True) for item in read] == [
        json.dumps(wanted if place == at else item.data, sort_keys=True) for place, item in enumerate(before)
    ]
    for key, value in changes.items():
        step = edited(path, text, before[at].data["kind"], before[at].data["name"], {key: value})
        assert is_one_line_at_the_most(text, step)
        text = step
    assert text == after


@settings(max_examples=60, deadline=None)
@given(texts(), st.data())
def test_a_manifest_that_is_taken_out_leaves_the_others_as_they_were(
    file: tuple[str, str], data: st.DataObject
) -> None:
    path, text = file
    before, errors = parse_file(path, text)
    assume(not errors and any("name" in item.data for item in before))
    at = drawn(data, before)
    after = without(path, text, before[at].data["kind"], before[at].data["name"])
    assert (after is None) == (len(before) == 1)
    if after is not None:
        assert [item.data for item in parse_file(path, after)[0]] == [
            item.data for place, item in enumerate(before) if place != at
        ]
        assert set(after.splitlines(keepends=True)) <= set(text.splitlines(keepends=True))


def test_most_manifests_can_be_edited() -> None:
    """The property above would hold for an editor that refuses all."""
    for file, text in (("a.toml", TOML), ("a.yaml", YAML_TEXT)):
        after = chat(file, text, model="m2", port=9000, context_size=4096, profile="p", device="gpu-vulkan")
        documents, errors = parse_file(file, after)
        assert not errors
        assert len(validate(documents)[0]) >= len(documents) - 1
