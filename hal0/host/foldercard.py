"""What a model's folder says of itself to a reader: its configuration, and the headers of its weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.modelfile import ModelCard
from hal0.host.folder import WEIGHTS

_MOST_TEXT = 32 << 20  # bytes of a JSON file: a tokenizer's configuration is some hundred thousand
_MOST_HEAD = 64 << 20
_TEMPLATE = "chat_template.jinja"
_TOKENIZER = "tokenizer_config.json"


def folder_card(config: str, files: Iterable[str]) -> Fact[ModelCard]:
    """Return the card of a model by its configuration and its other files, or why there is none."""
    folder, names = Path(config).parent, list(files)
    try:
        said = _json(Path(config))
        return Known(
            ModelCard(
                architecture=_text(said, "model_type"),
                parameters=sum(_elements(Path(name)) for name in names if name.endswith(WEIGHTS)) or None,
                quantization=_format(said),
                context_length=_whole(said, "max_position_embeddings"),
                chat_template=_template(folder, names),
            )
        )
    except (ValueError, RecursionError) as error:
        return Unknown(f"{folder}: {error}")
    except OSError as error:
        return Unknown(f"{error.filename}: {error.strerror}")


def _json(path: Path) -> dict[str, Any]:
    """Return an object of a JSON file. Raises ``ValueError`` and ``OSError``."""
    with path.open("rb") as file:
        text = file.read(_MOST_TEXT + 1)
    found = json.loads(text) if len(text) <= _MOST_TEXT else None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no object of JSON")  # noqa: TRY004  (it is a file's content)
    return found


def _format(config: dict[str, Any]) -> str:
    """Return the weights' format: how they were quantised, else the type of their elements."""
    quantised = config.get("quantization_config")
    method = _text(quantised, "quant_method") if isinstance(quantised, dict) else ""
    return method or _text(config, "torch_dtype") or _text(config, "dtype")


def _elements(path: Path) -> int:
    """Return how many elements the tensors of a safetensors file have. Raises ``ValueError`` and ``OSError``."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MOST_HEAD + 1  # noqa: PLR2004  (a u64)
        head = json.loads(file.read(length)) if length <= _MOST_HEAD else None
    if not isinstance(head, dict):
        raise ValueError(f"{path.name} is no safetensors file")  # noqa: TRY004  (it is a file's content)
    return sum(math.prod(_shape(tensor)) for name, tensor in head.items() if name != "__metadata__")


def _shape(tensor: Any) -> list[int]:
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and 0 <= size < 1 << 40 for size in shape[:8]):
        raise ValueError("a tensor has no shape")
    return shape[:8]


def _template(folder: Path, names: Iterable[str]) -> str:
    if str(folder / _TEMPLATE) in names:
        return (folder / _TEMPLATE).read_text(errors="replace")[:_MOST_TEXT]
    return _text(_json(folder / _TOKENIZER), "chat_template") if str(folder / _TOKENIZER) in names else ""


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _whole(values: dict[str, Any], key: str) -> int | None:
    value = values.get(key)
    return value if isinstance(value, int) and value > 0 else None
