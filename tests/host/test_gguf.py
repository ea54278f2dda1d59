from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from headers import LLAMA, Value, changed, gguf, text
from hypothesis import given
from hypothesis import strategies as st

from hal0.core.facts import Known, Unknown, known
from hal0.core.modelfile import ModelFacts, ModelFile
from hal0.host import gguf as module
from hal0.host.gguf import ModelFiles, read_model

REAL = Path(__file__).parents[2] / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
BERT = {key.replace("llama.", "bert."): found for key, found in changed({"general.architecture": "bert"}).items()}


def read(folder: Path, content: bytes) -> ModelFacts | str:
    """Return the facts of a file of that content, or the reason why there are none."""
    path = folder / "m.gguf"
    path.write_bytes(content)
    found = read_model(str(path))
    assert found.size == Known(len(content))
    return found.facts.value if isinstance(found.facts, Known) else found.facts.reason.removeprefix(f"{path}: ")


@pytest.mark.skipif(not REAL.exists(), reason=f"no {REAL}: `make model` fetches it")
def test_a_real_model() -> None:
    found = read_model(str(REAL))
    assert found.facts == Known(ModelFacts("llama", 98362432, 30, (3,) * 30, 64, 64, 8192))


def test_what_a_header_says(tmp_path: Path) -> None:
    content = gguf()
    assert read(tmp_path, content) == ModelFacts("llama", len(content), 4, (2,) * 4, 32, 32, 1024)


@pytest.mark.parametrize(
    ("changes", "kv_heads", "head"),
    [
        ({"llama.attention.head_count_kv": [2, 0, 2, 1]}, (2, 0, 2, 1), (32, 32)),
        ({"llama.attention.key_length": 192, "llama.attention.value_length": 128}, (2,) * 4, (192, 128)),
        ({"llama.attention.head_count": [8, 4, 8, 4]}, (2,) * 4, (32, 32)),
        ({"llama.attention.causal": False}, (0,) * 4, (32, 32)),
        ({"llama.attention.causal": True}, (2,) * 4, (32, 32)),
    ],
)
def test_heads_may_differ_by_layer(
    tmp_path: Path, changes: dict[str, Value], kv_heads: tuple[int, ...], head: tuple[int, int]
) -> None:
    found = read(tmp_path, gguf(changed(changes)))
    assert isinstance(found, ModelFacts)
    assert (found.kv_heads, (found.head_k, found.head_v)) == (kv_heads, head)


def test_without_shared_heads_each_one_is_kept(tmp_path: Path) -> None:
    plain = {key: found for key, found in LLAMA.items() if key != "llama.attention.head_count_kv"}
    found = read(tmp_path, gguf(plain))
    assert isinstance(found, ModelFacts)
    assert found.kv_heads == (8,) * 4


def test_another_architecture_has_keys_of_its_own(tmp_path: Path) -> None:
    found = read(tmp_path, gguf(BERT))
    assert isinstance(found, ModelFacts)
    assert found.architecture == "bert"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it ends within its header"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
        (gguf(version=1), "GGUF version 1, not one of 2, 3"),
        (gguf()[:-60], "it ends within its header"),
        (gguf(changed({"llama.block_count": "four"})), "llama.block_count is 'four', not within 1 and 4096"),
        (gguf(changed({"llama.block_count": 2**40})), f"llama.block_count is {2**40}, not within 1 and 4096"),
        (gguf(changed({"llama.block_count": 0})), "llama.block_count is 0, not within 1 and 4096"),
        (gguf(changed({"llama.context_length": 2**60})), f"llama.context_length is {2**60}, not within 1 and {2**31}"),
        (
            gguf(changed({"llama.attention.head_count_kv": [1, 2]})),
            "2 values of llama.attention.head_count_kv for 4 layers",
        ),
        (gguf({"general.architecture": "llama"}), "no llama.block_count before its tokenizer"),
        (gguf(changed({"general.architecture": "clip"})), "no clip.block_count before its tokenizer"),
        (gguf({"tokenizer.x": 1} | dict(LLAMA)), "it does not say its architecture"),
        (gguf({"llama.block_count": 4}), "it does not say its architecture"),
        (gguf(count=2**63)[: -len(text("tokenizer.ggml.tokens")) - 38], "it ends within its header"),
        (gguf({})[:-8] + struct.pack("<Q", 1) + text("a") + struct.pack("<I", 99), "a value of the unknown type 99"),
        (
            gguf({})[:-8] + struct.pack("<Q", 1) + text("a") + struct.pack("<IIQ", 9, 9, 1),
            "a value of the unknown type 9",
        ),
    ],
)
def test_what_can_not_be_read_is_unknown_with_its_reason(tmp_path: Path, content: bytes, why: str) -> None:
    assert read(tmp_path, content) == why


@pytest.mark.parametrize(
    "lie",
    [
        struct.pack("<Q", 2**62),  # the length of a key
        text("a") + struct.pack("<IQ", 8, 2**40),  # of a text
        text("a") + struct.pack("<IIQ", 9, 12, 2**61),  # of a list of numbers
        text("a") + struct.pack("<IIQ", 9, 8, 2**63),  # of a list of texts
        text("a") + struct.pack("<IIQ", 9, 0, 2**64 - 1),
        text("a") + struct.pack("<IIQ", 9, 1, 10**6) + bytes(10**6),  # no lie, and of no use
    ],
)
def test_a_file_that_lies_of_its_lengths_makes_nothing_large(tmp_path: Path, lie: bytes) -> None:
    tracemalloc.start()
    found = read(tmp_path, gguf({}, count=5) + lie + bytes(4096))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, str)
    assert most < 4 * 2**20


def test_a_head_without_end_is_not_read_on(tmp_path: Path) -> None:
    endless = gguf({f"general.note.{index}": "x" * 50_000 for index in range(30)} | dict(LLAMA))
    assert read(tmp_path, endless) == f"its header is longer than {2**20} bytes"


@given(st.binary(max_size=400))
def test_any_bytes_are_facts_or_a_reason(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    read(tmp_path_factory.getbasetemp(), content)
    read(tmp_path_factory.getbasetemp(), gguf({}, count=3) + content)


@given(st.data())
def test_a_good_head_with_damage_is_facts_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(gguf())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[at] = data.draw(st.integers(0, 255))
    found = read(tmp_path_factory.getbasetemp(), bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert isinstance(found, str) or len(found.kv_heads) == found.layers <= 4096


def parts(folder: Path, count: int, sizes: int = 100) -> str:
    for part in range(1, count + 1):
        content = gguf() if part == 1 else gguf({"split.no": part})
        (folder / f"big-{part:05d}-of-{count:05d}.gguf").write_bytes(content + bytes(sizes))
    return str(folder / f"big-00001-of-{count:05d}.gguf")


def test_a_split_model_is_one(tmp_path: Path) -> None:
    first = parts(tmp_path, 3)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    for path in (first, first.replace("-00001-", "-00002-")):
        found = read_model(path)
        facts = known(found.facts)
        assert (known(found.size), facts and (facts.size, facts.layers)) == (size, (size, 4))


def test_a_split_model_that_lacks_a_part_is_unknown(tmp_path: Path) -> None:
    first = parts(tmp_path, 3)
    gone = tmp_path / "big-00003-of-00003.gguf"
    gone.unlink()
    assert read_model(first).size == Unknown(f"{gone}: No such file or directory")


@pytest.mark.parametrize(
    ("name", "why"),
    [("no", "No such file or directory"), (".", "a folder without a model in it"), ("\0", "embedded null byte")],
)
def test_what_is_no_file_is_unknown(tmp_path: Path, name: str, why: str) -> None:
    found = read_model(f"{tmp_path}/{name}")
    assert found.facts == found.size == Unknown(f"{tmp_path}/{name}: {why}")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_model(str(tmp_path / "pipe")).facts == Unknown(f"{tmp_path}/pipe: not a file")


async def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, real = [], module._read_parts

    def counted(parts: module.Parts) -> ModelFile:
        reads.append(parts)
        return real(parts)

    monkeypatch.setattr(module, "_read_parts", counted)
    path, files = tmp_path / "m.gguf", ModelFiles()
    path.write_bytes(gguf())
    for _ in range(3):
        await files.look([str(path)])
    assert len(reads) == 1
    path.write_bytes(gguf(changed({"llama.block_count": 7})))
    await files.look([str(path)])
    facts = known(files.of(str(path)).facts)
    assert facts is not None
    assert facts.layers == 7
    path.unlink()
    await files.look([str(path)])
    assert files.of(str(path)).facts == Unknown(f"{path}: No such file or directory")


async def test_what_was_not_looked_at_is_unknown_and_what_is_not_asked_for_is_forgotten(tmp_path: Path) -> None:
    path, files = tmp_path / "m.gguf", ModelFiles()
    path.write_bytes(gguf())
    assert isinstance(files.of(str(path)).size, Unknown)
    await files.look([str(path)])
    await files.look([])
    assert files.of(str(path)).size == Unknown("its model's file was not looked at yet")


async def test_a_disk_that_does_not_answer_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, files = tmp_path / "m.gguf", ModelFiles(read_s=0.05)
    path.write_bytes(gguf())
    stuck = os.pipe()
    monkeypatch.setattr(module, "_read_parts", lambda _parts: os.read(stuck[0], 1))
    await files.look([str(path)])
    assert files.of(str(path)).size == Unknown(f"{path}: no answer from its disk in 0.05 s")
    os.write(stuck[1], b"x")
    monkeypatch.undo()
    await files.look([str(path)])
    assert files.of(str(path)).size == Known(len(gguf()))
    for end in stuck:
        os.close(end)
