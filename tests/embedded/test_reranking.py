"""Reranking by a real engine with a real cross-encoder, which the test makes: its scores are real, and mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from embedded.daemon import Daemon, fetch_from, free_port, serving
from models.reranker import reranker

pytestmark = pytest.mark.embedded
MANIFESTS = """
kind: Host
listen: 127.0.0.1:{listen}
---
kind: Model
name: ranks
path: {model}
---
kind: Slot
name: rerank
type: reranking
model: ranks
port: {port}
context_size: 128
"""
QUERY = "what is a panda?"
DOCUMENTS = ["it is a bear", "hello", "rust gears", "the panda lives in china"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    pytest.importorskip("xllamacpp", reason="the embedded engine is not installed")
    folder = tmp_path_factory.mktemp("reranking")
    model = folder / "ranks.gguf"
    model.write_bytes(reranker())
    made, port = Daemon(folder, model, free_port()), free_port()
    made.manifests.mkdir()
    (made.manifests / "all.yaml").write_text(MANIFESTS.format(listen=made.port, model=model, port=port))
    with serving(made):
        made.until_ready("rerank")
        yield made


def ranked(daemon: Daemon, documents: list[str], **more: Any) -> list[dict[str, Any]]:
    """Ask through /v1 with OpenAI's client, which has no method for it."""
    asked = {"model": "rerank", "query": QUERY, "documents": documents, **more}
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="local", max_retries=0) as client:
        answer: Any = client.post("/rerank", body=asked, cast_to=object)
    found: list[dict[str, Any]] = answer["results"]
    return found


def scores(found: list[dict[str, Any]], documents: list[str]) -> dict[str, float]:
    return {documents[each["index"]]: each["relevance_score"] for each in found}


def test_each_document_has_a_score_of_its_own_wherever_it_stands(daemon: Daemon) -> None:
    found = scores(ranked(daemon, DOCUMENTS), DOCUMENTS)
    assert len(set(found.values())) == len(DOCUMENTS)
    backwards = DOCUMENTS[::-1]
    assert scores(ranked(daemon, backwards), backwards) == pytest.approx(found, abs=1e-4)


def test_a_score_is_that_of_the_document_for_the_query(daemon: Daemon) -> None:
    one, other = (ranked(daemon, DOCUMENTS, query=query)[0] for query in (QUERY, "hello"))
    assert one["relevance_score"] != other["relevance_score"]


def test_the_best_documents_are_asked_for_alone(daemon: Daemon) -> None:
    best = ranked(daemon, DOCUMENTS, top_n=2)
    found = scores(ranked(daemon, DOCUMENTS), DOCUMENTS)
    assert sorted(found, key=lambda document: -found[document])[:2] == list(scores(best, DOCUMENTS))


def test_the_scores_are_the_engines_own(daemon: Daemon) -> None:
    asked = {"query": QUERY, "documents": DOCUMENTS}
    straight = fetch_from(daemon.slot("rerank")["port"], "/v1/rerank", asked).json["results"]
    assert scores(ranked(daemon, DOCUMENTS), DOCUMENTS) == pytest.approx(scores(straight, DOCUMENTS), abs=1e-4)
