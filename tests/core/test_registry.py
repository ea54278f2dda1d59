from __future__ import annotations

import json
import posixpath
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import FACTS, desired

from hal0.core.model import Source, SourceKind
from hal0.core.modelpath import files_of, parts, stem
from hal0.core.registry import ModelSpec, RemoteFile
from hal0.core.schema import Fetch

SHA = "0123456789abcdef" * 4
HUB = Source(SourceKind.HUB, repo="org/repo", file="deep/m.gguf")
SLOT = "---\nkind: Slot\nname: chat\nmodel: m\n"


def manifest(**keys: object) -> str:
    return json.dumps({"kind": "Model", "name": "m", **keys}) + "\n"


def model(**keys: object) -> ModelSpec:
    found = desired(manifest(**keys))
    assert not found.problems, [str(problem) for problem in found.problems]
    return found.registry["m"]


def problems(text: str) -> list[str]:
    return [str(problem) for problem in desired(text).problems]


# Keys.


def test_a_file_that_is_put_there_by_hand_has_nothing_that_fetches_it() -> None:
    found = model(path="m.gguf")
    assert found == ModelSpec("m", "/models/m.gguf", place="test.yaml:1")
    assert found.download is None


def test_a_hub_file_lies_below_its_repository_unless_a_path_is_named() -> None:
    source = {"repo": "org/repo", "file": "deep/m.gguf"}
    found = model(source=source, sha256=SHA.upper(), fetch="manual")
    assert (found.path, found.source, found.fetch) == ("/models/org/repo/deep/m.gguf", HUB, Fetch.MANUAL)
    assert found.download is not None
    assert found.download.files == (RemoteFile(HUB, "/models/org/repo/deep/m.gguf", SHA),)
    assert model(source=source, path="m.gguf").path == "/models/m.gguf"
    assert model(source=source | {"revision": "v2"}).source.revision == "v2"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://example.com/models/a%20b.gguf?download=true", "/models/a b.gguf"),
        ("http://[::1]:9000/m.gguf", "/models/m.gguf"),
        ("https://example.com/x%2Fy.gguf", "/models/y.gguf"),
    ],
)
def test_a_file_at_an_address_is_called_as_it_is_there(url: str, path: str) -> None:
    assert model(source={"url": url}).path == path


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "path: is required, unless `source`"),
    ({"source": {}}, "source: name exactly one of url, repo"),
    ({"source": {"url": "https://x/m.gguf", "repo": "a/b"}}, "source: name exactly one of url, repo"),
    ({"source": {"url": "https://x/m.gguf", "revision": "v1"}}, "source: file and revision go with repo"),
    ({"source": {"repo": "a", "file": "m.gguf"}}, "source.repo: 'a' does not fit"),
    ({"source": {"repo": "a/b", "file": "../m.gguf"}}, "source.file: is no file of a repository"),
    ({"source": {"repo": "a/b", "file": "/m.gguf"}}, "source.file: is no file of a repository"),
    ({"source": {"url": "ftp://x/m.gguf"}}, "source.url: is no address of a file"),
    ({"source": {"url": "https://me:secret@x/m.gguf"}}, "source.url: must be an address without a password"),
    ({"source": {"url": "https://x:99999/m.gguf"}}, "source.url: Port out of range"),
    ({"source": {"url": "https://x:0/m.gguf"}}, "source.url: 0 is no port"),
    ({"source": {"url": "https://x/folder/"}}, "path: is required where the address"),
    ({"source": {"url": "https://x/a/%2E%2E"}}, "path: is required where the address"),
    ({"source": {"url": "https://x/a:b.gguf"}}, "path: is required where the address"),
    ({"path": "m.gguf", "sha256": "abc"}, "sha256: 'abc' does not fit"),
    ({"path": "m-00001-of-00002.gguf", "sha256": SHA}, "sha256: each part of a split model"),
    ({"path": "m.gguf", "source": {"repo": "a/b", "file": "m-00001-of-00003.gguf"}}, "path: the source has 3 files"),
    ({"source": {"url": "https://x/m.gguf"}, "mmproj": "mm.gguf"}, "mmproj: comes from a repository"),
    ({"path": "m.gguf", "fetch": "always"}, "fetch: 'always' is not one of auto, manual"),
    ({"path": "/srv/m.gguf", "mmproj": "mm.gguf"}, "mmproj: is not below /srv"),
]


@pytest.mark.parametrize(("keys", "message"), WRONG)
def test_what_does_not_fit_is_told_with_its_place(keys: dict[str, Any], message: str) -> None:
    (problem,) = problems(manifest(**keys))
    assert problem.startswith(f"test.yaml:1: {message}")
    assert "secret" not in problem


def test_an_error_within_the_source_names_its_line() -> None:
    text = "kind: Model\nname: m\nsource:\n  repo: a/b\n  file: ../x\n"
    assert problems(text)[0].startswith("test.yaml:5: source.file: ")


def test_two_models_of_one_file_have_one_source() -> None:
    source = {"repo": "org/repo", "file": "m.gguf"}
    same = manifest(source=source) + "---\n" + manifest(name="n", source=source, context_size=9)
    assert problems(same) == []
    other = manifest(source=source) + "---\n" + manifest(name="n", path="org/repo/m.gguf")
    assert problems(other) == [
        "test.yaml:3: path: its file is that of test.yaml:1, which has another source",
    ]


# What is fetched.


def test_nothing_is_fetched_into_a_folder_that_is_only_looked_into() -> None:
    host = json.dumps({"kind": "Host", "model_dirs": ["/hf"]}) + "\n---\n"
    source = {"repo": "org/repo", "file": "m.gguf"}
    assert problems(host + manifest(path="/hf/m.gguf")) == []
    assert problems(host + manifest(path="/data/m.gguf", source=source)) == []
    (problem,) = problems(host + manifest(path="/hf/a/../m.gguf", source=source))
    assert "path: leads into /hf, where hal0 writes nothing (leave it out, or name a path below /models)" in problem


def test_a_vision_part_may_lie_anywhere_in_the_folder_of_its_model() -> None:
    host = json.dumps({"kind": "Host", "model_dirs": ["/hf"]}) + "\n---\n"
    assert problems(host + manifest(path="/hf/a/m.gguf", mmproj="/hf/b/mmproj.gguf")) == []
    assert "is not below /hf" in problems(host + manifest(path="/hf/a/m.gguf", mmproj="/x/mmproj.gguf"))[0]


def test_a_whole_repository_is_a_folder() -> None:
    source = {"repo": "org/repo", "include": ["*.json", "*.safetensors"]}
    found = model(source=source)
    assert (found.path, found.files, found.mmproj) == ("/models/org/repo", ("/models/org/repo",), "")
    assert found.source.is_folder
    assert [found.source.takes(name) for name in ("a.json", "deep/b.safetensors", "c.bin")] == [True, True, False]
    assert found.download is not None
    assert found.download.files == (RemoteFile(found.source, "/models/org/repo"),)
    assert model(source={"repo": "org/repo"}, path="tiny").path == "/models/tiny"
    assert model(source={"repo": "org/repo"}).source.takes("anything")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source": {"repo": "o/r"}, "sha256": SHA}, "without a file it is a folder"),
        ({"source": {"repo": "o/r"}, "mmproj": "x.gguf"}, "without a file it is a folder"),
        ({"source": {"repo": "o/r"}, "path": "x.gguf"}, "without a file it is a folder"),
        ({"source": {"repo": "o/r", "file": "x.gguf", "include": ["*"]}}, "include goes with a whole repository"),
        ({"source": {"url": "https://x.example/x.gguf", "include": ["*"]}}, "include goes with a whole repository"),
    ],
)
def test_a_folder_has_nothing_of_a_file(keys: dict[str, Any], message: str) -> None:
    (problem,) = problems(manifest(**keys))
    assert message in problem


def test_vllm_is_given_the_folder_where_its_container_has_it_and_llama_server_gets_none() -> None:
    source = {"source": {"repo": "org/repo"}, "path": "repo"}
    found = desired(manifest(**source) + SLOT + "device: gpu-cuda\nprofile: vllm-cuda\n")
    assert not found.problems
    argv = list(found.slots["chat"].launch.argv)
    assert "--volume=/models:/models:ro" in argv
    assert argv[argv.index("serve") + 1] == "/models/repo"
    (problem,) = problems(manifest(**source) + SLOT)
    assert "m is a whole repository, and the engine of profile 'llama-server-cpu' takes a file" in problem


def test_every_part_of_a_split_model_is_fetched() -> None:
    download = model(source={"repo": "org/repo", "file": "q/m-00001-of-00002.gguf"}).download
    assert download is not None
    assert [(file.source.file, file.path) for file in download.files] == [
        (f"q/m-0000{part}-of-00002.gguf", f"/models/org/repo/q/m-0000{part}-of-00002.gguf") for part in (1, 2)
    ]
    download = model(source={"url": "https://x/m-00001-of-00002.gguf?a=b"}).download
    assert download is not None
    assert download.files[1].source.url == "https://x/m-00002-of-00002.gguf?a=b"


def test_the_vision_part_comes_from_the_models_repository_and_lies_beside_it() -> None:
    found = model(source={"repo": "org/repo", "file": "q/m.gguf"}, path="deep/m.gguf", mmproj="mm.gguf", sha256=SHA)
    assert found.mmproj == "/models/deep/mm.gguf"
    assert found.download is not None
    assert found.download.files[1] == RemoteFile(replace(HUB, file="q/mm.gguf"), "/models/deep/mm.gguf")
    assert model(path="m.gguf", mmproj="mm/x.gguf").mmproj == "/models/mm/x.gguf"


def test_the_vision_part_is_told_to_the_engine_where_the_container_has_it() -> None:
    text = manifest(path="a/m.gguf", mmproj="a/mm.gguf") + SLOT
    argv = desired(text).slots["chat"].launch.argv
    assert argv[argv.index("--mmproj") + 1] == "/models/a/mm.gguf"
    argv = desired(text, facts=replace(FACTS, runtime="process")).slots["chat"].launch.argv
    assert argv[argv.index("--mmproj") + 1] == "/models/a/mm.gguf"
    assert "--mmproj" not in desired(manifest(path="m.gguf") + SLOT).slots["chat"].launch.argv


def test_another_source_is_another_generation_and_no_other_engine() -> None:
    one = desired(manifest(source={"repo": "org/repo", "file": "m.gguf"}, path="m.gguf") + SLOT)
    other = desired(manifest(source={"repo": "org/repo", "file": "n.gguf"}, path="m.gguf") + SLOT)
    moved = desired("\n" + manifest(source={"repo": "org/repo", "file": "m.gguf"}, path="m.gguf") + SLOT)
    assert one.content != other.content
    assert one.content == moved.content
    assert one.slots["chat"].spec_hash == other.slots["chat"].spec_hash


# Names of files.

NAMES = st.from_regex(r"[a-z/][a-z/.-]{0,10}", fullmatch=True)


@given(NAMES, st.integers(1, 40))
def test_any_part_of_a_split_model_tells_all_of_them(name: str, count: int) -> None:
    files = [f"{name}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1)]
    assert {parts(file) for file in files} == {tuple(files)}
    assert {stem(file) for file in files} == {name}


@given(NAMES.map(lambda name: name + ".gguf"), st.just("") | NAMES)
def test_any_other_name_is_one_file(name: str, mmproj: str) -> None:
    assert parts(name) == (name,)
    assert files_of(name, mmproj) == ((name, mmproj) if mmproj else (name,))
    assert stem(name) == posixpath.splitext(name)[0]


def test_a_number_of_parts_that_nobody_has_is_no_number_of_parts() -> None:
    for name in ("m-00001-of-99999.gguf", "m-00000-of-00000.gguf", "m-1-of-2.gguf"):
        assert parts(name) == (name,)
