"""Models on disk, for the list of them: scanned, read, hashed."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from threading import Event

import pytest
from headers import changed, gguf, text
from hypothesis import given
from hypothesis import strategies as st

from hal0.core.catalog import FoundFile
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.modelfile import ModelCard
from hal0.errors import UsageError
from hal0.host import scan as scanning
from hal0.host.digests import hash_file
from hal0.host.gguf import Parts, look_at
from hal0.host.library import Library
from hal0.host.modelcard import read_card
from hal0.host.scan import scan
from hal0.host.store import Store

REAL = Path(__file__).parents[2] / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"


def tensors(*shapes: tuple[int, ...]) -> bytes:
    """Return what a head says of its tensors."""
    return b"".join(
        text(f"t{number}") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 2, 0)
        for number, shape in enumerate(shapes)
    )


def whole(*shapes: tuple[int, ...], **values: str | int) -> bytes:
    """Return a head with all that is told of a model."""
    said = changed({key.replace("__", "."): found for key, found in values.items()})
    head = bytearray(gguf(said) + tensors(*shapes))
    head[8:16] = struct.pack("<Q", len(shapes))
    return bytes(head)


def card(folder: Path, content: bytes, name: str = "m.gguf") -> Fact[ModelCard]:
    (folder / name).write_bytes(content)
    return read_card(look_at(str(folder / name)))


# Cards.


def test_a_card_says_what_the_header_says(tmp_path: Path) -> None:
    content = whole(
        (256, 100), (4, 4, 2), general__name="Small", general__file_type=15, tokenizer__chat_template="{% x %}"
    )
    assert card(tmp_path, content) == Known(
        ModelCard("llama", "Small", "model", 256 * 100 + 32, "Q4_K_M", 1024, "{% x %}")
    )


def test_what_a_header_does_not_say_is_left_empty(tmp_path: Path) -> None:
    assert card(tmp_path, gguf({"general.type": "mmproj"})) == Known(ModelCard(kind="mmproj"))
    assert card(tmp_path, whole(general__file_type=99)) == Known(
        ModelCard("llama", quantization="type 99", context_length=1024)
    )


def test_the_parameters_of_all_parts_are_counted(tmp_path: Path) -> None:
    card(tmp_path, whole((3,), general__name="Big"), "m-00001-of-00002.gguf")
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(whole((4,), general__name="part"))
    found = read_card(look_at(str(tmp_path / "m-00001-of-00002.gguf")))
    assert isinstance(found, Known)
    assert (found.value.title, found.value.parameters) == ("Big", 7)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"nothing of the kind", "not a GGUF file"),
        (whole((2, 2))[:-1], "it ends within its header"),
        (whole((2**40, 2**40)), "tensors of 1.21e+24 elements"),
        (whole((1,) * 9), "a tensor of 9 dimensions"),
    ],
)
def test_what_is_no_model_has_no_card_and_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    assert card(tmp_path, content) == Unknown(f"{tmp_path}/m.gguf: {reason}")


@given(st.binary(max_size=200), st.integers(0, 400))
def test_whatever_is_in_a_file_it_has_a_card_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    content = whole((2, 2))
    found = card(tmp_path_factory.mktemp("junk"), content[:at] + junk + content[at + len(junk) :])
    assert isinstance(found, Known | Unknown)


@pytest.mark.skipif(not REAL.exists(), reason=f"no {REAL}: `make model` fetches it")
def test_a_real_model() -> None:
    found = read_card(look_at(str(REAL)))
    assert isinstance(found, Known)
    said = found.value
    assert (said.architecture, said.quantization, said.context_length) == ("llama", "Q4_1", 8192)
    assert said.parameters == 134_515_008
    assert "<|im_start|>" in said.chat_template


# Scanning.


def names(folder: Path) -> list[str]:
    return [file.path.removeprefix(f"{folder}/") for file in scan(str(folder))]


def put(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"12345")


def test_model_files_are_found_below_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", "org/repo/b.gguf", "ggml-base.bin", "c.gguf.part")
    put(tmp_path, "readme.md", "pytorch.bin", ".hidden/d.gguf", "1/2/3/4/5/deep.gguf")
    (tmp_path / "empty.gguf").mkdir()
    assert names(tmp_path) == ["a.gguf", "c.gguf.part", "ggml-base.bin", "org/repo/b.gguf"]
    assert scan(str(tmp_path))[0].size == 5


def test_links_are_followed_within_the_folder_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    put(inside, "blobs/a.gguf")
    put(outside, "b.gguf")
    (inside / "a.gguf").symlink_to("blobs/a.gguf")
    (inside / "b.gguf").symlink_to(outside / "b.gguf")
    (inside / "c.gguf").symlink_to("nothing")
    (inside / "loop").symlink_to(inside)
    assert names(inside) == ["a.gguf", "blobs/a.gguf"]


def test_a_folder_without_end_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_MOST", 10)
    put(tmp_path, *(f"{number}/{number}.gguf" for number in range(20)))
    assert len(names(tmp_path)) <= 10


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert scan(str(tmp_path / "nothing")) == ()


async def test_declared_files_are_found_wherever_they_lie(tmp_path: Path) -> None:
    put(tmp_path, "models/a.gguf", "else/b.gguf.part")
    found = await Library().files(str(tmp_path / "models"), [f"{tmp_path}/else/b.gguf", f"{tmp_path}/models/a.gguf"])
    assert sorted(file.path.removeprefix(f"{tmp_path}/") for file in found) == ["else/b.gguf.part", "models/a.gguf"]


async def test_a_header_is_read_again_only_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Parts] = []

    def read(there: Parts) -> Fact[ModelCard]:
        reads.append(there)
        return Known(ModelCard("x"))

    monkeypatch.setattr("hal0.host.library.read_card", read)
    put(tmp_path, "m.gguf")
    library, path = Library(), f"{tmp_path}/m.gguf"
    for _ in range(2):
        assert await library.cards([path]) == {path: Known(ModelCard("x"))}
    assert len(reads) == 1
    (tmp_path / "m.gguf").write_bytes(b"longer than before")
    await library.cards([path])
    assert len(reads) == 2


# Digests.


def test_a_digest_is_known_for_as_long_as_the_file_is_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path / "hal0.db")
    store.digests.note("/m", 5, 7, "abc")
    store.close()
    store = Store(tmp_path / "hal0.db")
    assert store.digests.of("/m", 5, 7) == "abc"
    assert store.digests.of("/m", 6, 7) is store.digests.of("/m", 5, 8) is store.digests.of("/n", 5, 7) is None
    store.digests.forget("/m")
    assert store.digests.of("/m", 5, 7) is None
    store.close()


def test_a_file_is_hashed(tmp_path: Path) -> None:
    put(tmp_path, "m.gguf")
    told: list[tuple[int, int]] = []
    size, modified, digest = hash_file(str(tmp_path / "m.gguf"), lambda *at: told.append(at), Event())
    seen = (tmp_path / "m.gguf").stat()
    assert FoundFile("", size, modified) == FoundFile("", seen.st_size, seen.st_mtime_ns)
    assert digest == hashlib.sha256(b"12345").hexdigest()
    assert told == [(5, 5)]


def test_a_file_that_changes_meanwhile_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    put(tmp_path, "m.gguf")

    def change(_done: int, _total: int) -> None:
        path.write_bytes(b"other and longer")

    with pytest.raises(UsageError, match="changes while it is read"):
        hash_file(str(path), change, Event())
    with pytest.raises(UsageError, match="nothing: No such file"):
        hash_file(str(tmp_path / "nothing"), lambda *_: None, Event())
    stop = Event()
    stop.set()
    with pytest.raises(UsageError, match="not hashed to its end"):
        hash_file(str(path), lambda *_: None, stop)
