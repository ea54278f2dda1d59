"""Where a model comes from, as people write it; and what a repository has for llama.cpp."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hal0.core.model import ListedFile, Source, SourceKind
from hal0.core.reference import Offer, Reference, offers, reference
from hal0.core.schema import SourceManifest


def hub(file: str = "", revision: str = "main", tag: str = "", repo: str = "org/repo") -> Reference:
    return Reference(Source(SourceKind.HUB, repo=repo, file=file, revision=revision), tag)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("org/repo/x.gguf", hub("x.gguf")),
        ("org/repo/q4/x.gguf@v1", hub("q4/x.gguf", "v1")),
        ("org/repo/x-00002-of-00003.gguf", hub("x-00001-of-00003.gguf")),
        ("org/repo", hub()),
        ("org/repo@refs/pr/1", hub(revision="refs/pr/1")),
        ("org/repo:Q4_K_M", hub(tag="Q4_K_M")),
        ("org/repo:Q4_K_M@v1", hub(revision="v1", tag="Q4_K_M")),
        ("hf.co/org/repo:Q8_0", hub(tag="Q8_0")),
        ("huggingface.co/org/repo/x.gguf", hub("x.gguf")),
        ("https://huggingface.co/org/repo", hub()),
        ("https://huggingface.co/org/repo/", hub()),
        ("https://huggingface.co/org/repo/tree/dev/q4", hub(revision="dev")),
        ("https://huggingface.co/org/repo/blob/main/q4/a%20b.gguf", hub("q4/a b.gguf")),
        ("https://HF.co/org/repo/resolve/refs%2Fpr%2F1/x.gguf?download=true", hub("x.gguf", "refs/pr/1")),
        ("https://huggingface.co/org", None),
        ("qwen3-8b", None),
        ("/models/x.gguf", None),
        ("org//x.gguf", None),
        ("", None),
    ],
)
def test_a_model_is_named_by_where_it_comes_from(text: str, found: Reference | None) -> None:
    assert reference(text) == found
    assert found is None or found.is_file == bool(found.source.file)


@pytest.mark.parametrize(
    "text", ["https://x.example/a/b.gguf?key=1", "http://127.0.0.1:9/b.gguf", "https://hf.co.evil/a/b"]
)
def test_any_other_address_is_that_of_a_file(text: str) -> None:
    found = reference(text)
    assert found == Reference(Source(SourceKind.URL, url=text))
    assert found.is_file


@given(st.text(max_size=40), st.sampled_from(["", "org/repo/", "https://huggingface.co/", "hf.co/a/b/"]))
def test_whatever_is_written_is_a_source_that_a_manifest_can_hold_or_none(text: str, before: str) -> None:
    found = reference(before + text)
    if found is None or not found.is_file or found.source.kind is SourceKind.URL:
        return
    source = found.source
    try:
        manifest = SourceManifest(repo=source.repo, file=source.file, revision=source.revision)
    except ValidationError:
        return  # it is told by the manifest's own error
    assert (manifest.repo, manifest.file, manifest.revision) == (source.repo, source.file, source.revision)


FILES = [
    ListedFile("README.md", 1),
    ListedFile("x-Q4_K_M.gguf", 4),
    ListedFile("x-Q4_K_S.gguf", 3),
    ListedFile("q8/x-Q8_0-00001-of-00002.gguf", 5),
    ListedFile("q8/x-Q8_0-00002-of-00002.gguf", 6),
    ListedFile("mmproj-F16.gguf", 2),
]
ALL = (Offer("q8/x-Q8_0-00001-of-00002.gguf", 11), Offer("x-Q4_K_M.gguf", 4), Offer("x-Q4_K_S.gguf", 3))


@pytest.mark.parametrize(
    ("tag", "found"),
    [("", ALL), ("q4_k_m", ALL[1:2]), ("Q8_0", ALL[:1]), ("Q4_K", ()), ("F16", ()), ("x", ALL)],
)
def test_what_a_repository_offers(tag: str, found: tuple[Offer, ...]) -> None:
    assert offers(FILES, tag) == found


def test_a_split_model_of_which_a_part_is_missing_has_no_size() -> None:
    assert offers(FILES[3:4]) == (Offer("q8/x-Q8_0-00001-of-00002.gguf", None),)
