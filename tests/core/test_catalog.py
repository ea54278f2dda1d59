from __future__ import annotations

import posixpath
import re

from hypothesis import given
from hypothesis import strategies as st
from worlds import desired

from hal0.core.catalog import PART, Entry, FoundFile, catalog, manifest_of, model_id
from hal0.core.documents import Document
from hal0.core.modelpath import files_of
from hal0.core.registry import ModelSpec
from hal0.core.schema import ModelManifest
from hal0.core.validate import Located

DIR = "/models"
SPLIT = [f"/models/big-0000{part}-of-00002.gguf" for part in (1, 2)]


def found(*paths: str) -> list[FoundFile]:
    return [FoundFile(path, 10, 1) for path in paths]


def listed(*paths: str, declared: str = "") -> dict[str, Entry]:
    registry = desired(declared).registry if declared else {}
    return {entry.name: entry for entry in catalog(registry, found(*paths), [DIR, "/hf"])}


def test_a_file_is_called_after_its_name() -> None:
    assert list(listed("/models/Qwen3-8B-Q4_K_M.gguf")) == ["qwen3-8b-q4_k_m"]
    assert list(listed("/models/a/x.gguf", "/models/b/x.gguf", "/models/x.gguf")) == ["x", "b/x", "x-2"]


def test_a_split_model_is_one() -> None:
    (entry,) = listed(*SPLIT).values()
    assert (entry.name, entry.path, entry.size, entry.is_here) == ("big", SPLIT[0], 20, True)
    (entry,) = listed(SPLIT[1]).values()
    assert (entry.path, entry.size, entry.is_here) == (SPLIT[0], 10, False)


def test_a_vision_part_is_that_of_the_models_beside_it() -> None:
    entries = listed("/models/v/a.gguf", "/models/v/mmproj-F16.gguf", "/models/b.gguf")
    assert {name: entry.mmproj for name, entry in entries.items()} == {"a": "/models/v/mmproj-F16.gguf", "b": ""}
    entries = listed("/models/v/a.gguf", "/models/v/mmproj-F16.gguf", "/models/v/mmproj-F32.gguf")
    assert {name: entry.mmproj for name, entry in entries.items()} == {"a": ""}


def test_a_declared_model_is_no_found_one_and_its_names_are_taken() -> None:
    text = "kind: Model\nname: m\npath: deep/m.gguf\naliases: [x]\n"
    entries = listed("/models/deep/m.gguf", "/models/m.gguf", "/models/x.gguf", declared=text)
    assert {name: entry.path for name, entry in entries.items()} == {
        "m": "/models/deep/m.gguf",
        "m-2": "/models/m.gguf",
        "x-2": "/models/x.gguf",
    }
    assert entries["m"].spec is not None


def test_half_a_file_is_counted_and_is_no_model() -> None:
    text = "kind: Model\nname: m\nsource: {repo: a/b, file: m.gguf}\n"
    entries = listed("/models/a/b/m.gguf" + PART, "/models/other.gguf" + PART, declared=text)
    assert list(entries) == ["m"]
    assert (entries["m"].kept, entries["m"].is_here, entries["m"].files) == (10, False, ())


def test_a_model_without_its_vision_part_is_not_whole() -> None:
    text = "kind: Model\nname: m\npath: m.gguf\nmmproj: mm.gguf\n"
    assert not listed("/models/m.gguf", declared=text)["m"].is_here
    assert listed("/models/m.gguf", "/models/mm.gguf", declared=text)["m"].is_here


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=150)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: posixpath.join(DIR, *parts) + ".gguf")
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")


@given(PATHS)
def test_every_path_has_an_id_that_a_manifest_may_have(path: str) -> None:
    assert MODEL_ID.fullmatch(model_id(path))


@given(st.lists(PATHS, max_size=8, unique=True), st.sets(st.sampled_from(["a", "b", "model"]), max_size=3))
def test_whatever_lies_there_every_model_has_a_name_of_its_own(paths: list[str], names: set[str]) -> None:
    registry = {name: ModelSpec(name, f"{DIR}/{name}.gguf", aliases=(f"{name}-2",)) for name in names}
    entries = catalog(registry, found(*paths), [DIR, "/hf"])
    every = [entry.name for entry in entries] + [f"{name}-2" for name in names]
    assert len(set(every)) == len(every)
    assert all(MODEL_ID.fullmatch(name) for name in every)
    shown = {path for entry in entries for path in (*files_of(entry.path, entry.mmproj), entry.path)}
    assert {path for path in paths if "mmproj" not in posixpath.basename(path).lower()} <= shown


@given(st.lists(st.sampled_from(["A", "b", "c d"]), min_size=1, max_size=3))
def test_the_manifest_of_what_was_found_declares_it(parts: list[str]) -> None:
    path = posixpath.join(DIR, *parts) + ".gguf"
    (entry,) = catalog({}, found(path), [DIR])
    manifest = ModelManifest.model_validate(manifest_of(entry, DIR))
    text = f"kind: Model\nname: {manifest.name}\npath: {manifest.path!r}\n"
    assert Located(manifest, Document("m.yaml", {})).manifest.name == entry.name
    (declared,) = catalog(desired(text).registry, found(path), [DIR])
    assert (declared.path, declared.is_here) == (entry.path, True)


def test_what_lies_in_another_folder_is_declared_by_its_whole_path() -> None:
    entries = listed("/hf/a/x.gguf", "/hf/b/x.gguf", "/models/y.gguf")
    assert {name: manifest_of(entry, DIR)["path"] for name, entry in entries.items()} == {
        "x": "/hf/a/x.gguf",
        "b/x": "/hf/b/x.gguf",
        "y": "y.gguf",
    }
