from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from hal0.engine import xllamacpp as engine
from hal0.engine.flags import CHOICES, FLAGS, SWITCHES, Parser


class FakeParams(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(
            cpuparams=SimpleNamespace(n_threads=-1),
            cpuparams_batch=SimpleNamespace(n_threads=-1),
            model=SimpleNamespace(path=""),
            embedding=False,
            pooling_type=None,
        )


LIBRARY = SimpleNamespace(
    llama_pooling_type=SimpleNamespace(LLAMA_POOLING_TYPE_RANK="rank", LLAMA_POOLING_TYPE_MEAN="mean"),
    llama_flash_attn_type=SimpleNamespace(LLAMA_FLASH_ATTN_TYPE_ENABLED="enabled"),
)


def applied(*argv: str) -> FakeParams:
    params = FakeParams()
    engine.apply(params, Parser("engine", "").settings(["--model", "m.gguf", *argv]), LIBRARY)
    return params


def test_flags_land_in_their_fields() -> None:
    params = applied("--port", "9", "--host", "::1", "--alias", "a,b", "-c", "512", "--metrics", "-ngl", "auto")
    assert (params.port, params.hostnames, params.model_alias) == (9, ["::1"], {"a", "b"})
    assert (params.n_ctx, params.endpoint_metrics, params.n_gpu_layers) == (512, True, -1)
    assert params.model.path == "m.gguf"


def test_threads_default_to_the_cpus_of_this_process() -> None:
    params = applied()
    assert params.cpuparams.n_threads == params.cpuparams_batch.n_threads == len(os.sched_getaffinity(0))


def test_batch_threads_follow_threads_unless_told() -> None:
    assert applied("--threads", "3").cpuparams_batch.n_threads == 3
    assert applied("--threads", "3", "-tb", "1").cpuparams_batch.n_threads == 1


def test_reranking_is_embedding_with_rank_pooling() -> None:
    params = applied("--reranking")
    assert (params.embedding, params.pooling_type) == (True, "rank")


def test_words_become_members_of_the_librarys_enumerations() -> None:
    params = applied("--embedding", "--pooling", "mean", "--flash-attn", "on")
    assert (params.pooling_type, params.flash_attn_type) == ("mean", "enabled")


def test_an_api_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "k")
    assert applied().api_keys == ["k"]


@pytest.mark.parametrize("argv", [["--bogus", "1"], ["--ctx", "1"], ["stray"]])
def test_an_unknown_flag_is_answered_with_the_known_ones(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        Parser("engine", "").settings(["--model", "m", *argv])
    answer = capsys.readouterr().err
    assert exit_.value.code == 2
    assert argv[0] in answer
    assert "--ctx-size" in answer
    assert answer.count("\n") == 1


def test_a_model_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Parser("engine", "").settings([])
    assert "--model is required" in capsys.readouterr().err


def test_a_missing_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.model_problem(str(tmp_path / "no.gguf")).endswith("No such file or directory")
    assert capsys.readouterr().err == ""


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>")
    assert "not a GGUF file" in engine.model_problem(str(path))
    assert "Is a directory" in engine.model_problem(str(tmp_path))


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"127.0.0.1:{port}" in engine.port_problem("127.0.0.1", port)
    assert engine.port_problem("127.0.0.1", port) == ""


@pytest.mark.embedded
def test_every_target_exists_in_the_library() -> None:
    library = pytest.importorskip("xllamacpp")
    params = library.CommonParams()
    for target in [row.target for table in (FLAGS, SWITCHES, CHOICES) for row in table]:
        *parents, name = target.split(".")
        owner = params
        for parent in parents:
            owner = getattr(owner, parent)
        assert hasattr(owner, name), target
    for choice in CHOICES:
        assert all(hasattr(getattr(library, choice.enum), choice.member(word)) for word in choice.words)
