"""Models that are folders: how they are found, how large they are, and what they say of themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.core.catalog import FoundFile
from hal0.core.facts import Known, Unknown
from hal0.core.modelfile import ModelCard
from hal0.host.folder import CONFIG, as_one, files_in, remove
from hal0.host.gguf import look_at, read_model
from hal0.host.library import Library
from hal0.host.modelcard import read_card
from hal0.host.scan import scan

CONFIGURATION = {"model_type": "qwen2", "max_position_embeddings": 4096, "torch_dtype": "bfloat16"}
SHAPES = {"__metadata__": {"format": "pt"}, "a": {"shape": [3, 5]}, "b": {"shape": [7]}, "c": {"shape": []}}


def weights(head: object = SHAPES) -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + b"data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "org" / "Tiny2.5-0.1B"
    (folder / "deep").mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(CONFIGURATION))
    (folder / "a.safetensors").write_bytes(weights())
    (folder / "deep" / "vocab.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}"}')
    return folder


def card(folder: Path) -> ModelCard:
    found = read_card(look_at(str(folder)))
    assert isinstance(found, Known), found
    return found.value


def test_a_folder_is_found_as_one_and_so_are_files_beside_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    half = tmp_path / "org" / "half.part"
    half.mkdir()
    (half / CONFIG).touch()
    (half / "a.safetensors").touch()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / CONFIG).touch()
    found = scan(str(tmp_path))
    assert [file.path for file in found] == [str(model), str(tmp_path / "x.gguf")]
    assert found[0].size == sum(file.stat().st_size for file in files_in(model))
    assert found[0] == as_one(model)


def test_a_folder_that_leads_elsewhere_is_not_found(model: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "there").symlink_to(model)
    linked = inside / "linked"
    linked.mkdir()
    for name in (CONFIG, "a.safetensors"):
        (linked / name).symlink_to(model / name)
    assert scan(str(inside)) == ()


async def test_what_is_declared_is_seen_with_what_is_half_there(model: Path, tmp_path: Path) -> None:
    half = tmp_path / "other.part"
    half.mkdir()
    assert as_one(half) == FoundFile(str(half), 0, 0)
    (half / "a.safetensors.part").write_bytes(b"12345")
    (tmp_path / "none").mkdir()
    found = await Library().files([], [str(model), str(tmp_path / "other"), str(tmp_path / "none")])
    assert {(Path(file.path).name, file.size) for file in found if "part" in file.path} == {("other.part", 5)}
    assert {file.path for file in found} == {str(model), str(half)}


def test_a_folder_has_a_size_and_no_facts_of_llama_cpp(model: Path) -> None:
    found = read_model(str(model))
    assert found.size == Known(sum(file.stat().st_size for file in files_in(model)))
    assert isinstance(found.facts, Unknown)
    empty = read_model(str(model / "deep")).size
    assert isinstance(empty, Unknown)
    assert "without a model in it" in empty.reason


def test_a_folder_says_what_it_is(model: Path) -> None:
    assert card(model) == ModelCard("qwen2", "", "model", 23, "bfloat16", 4096, "{{ x }}")
    (model / "chat_template.jinja").write_text("{{ y }}")
    (model / CONFIG).write_text(json.dumps(CONFIGURATION | {"quantization_config": {"quant_method": "awq"}}))
    assert (card(model).quantization, card(model).chat_template) == ("awq", "{{ y }}")


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        (CONFIG, b"[]", "config.json is no object of JSON"),
        (CONFIG, b"{", "Expecting"),
        ("a.safetensors", b"12", "is no safetensors file"),
        ("a.safetensors", struct.pack("<Q", 1 << 60), "is no safetensors file"),
        ("a.safetensors", weights([]), "is no safetensors file"),
        ("a.safetensors", weights({"a": {"shape": [-1]}}), "a tensor has no shape"),
        ("a.safetensors", weights({"a": 1}), "a tensor has no shape"),
        ("tokenizer_config.json", b"\xff", "decode"),
    ],
)
def test_a_folder_that_is_damaged_says_so(model: Path, file: str, content: bytes, why: str) -> None:
    (model / file).write_bytes(content)
    found = read_card(look_at(str(model)))
    assert isinstance(found, Unknown)
    assert why in found.reason


@given(st.binary(max_size=200), st.sampled_from([CONFIG, "a.safetensors", "tokenizer_config.json"]))
def test_whatever_is_in_a_folder_is_a_card_or_a_reason(content: bytes, file: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / CONFIG).write_text("{}")
        (folder / "a.safetensors").write_bytes(weights())
        (folder / file).write_bytes(content)
        assert isinstance(read_card(look_at(name)), Known | Unknown)


def test_a_folder_goes_with_all_that_is_in_it(model: Path) -> None:
    size = sum(file.stat().st_size for file in files_in(model))
    assert remove(model) == size
    assert not model.exists()
