"""What models' files say of themselves to a reader: GGUF headers, read deeper than the loop needs, for views only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.modelfile import ModelCard
from hal0.host.folder import CONFIG
from hal0.host.foldercard import folder_card
from hal0.host.gguf import BadHeadError, Head, Parts, Value

_LONGEST = 64 << 20  # bytes of a header: the tokens of a large vocabulary are some millions
_NAMES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}
"""``general.file_type`` by its number: llama.cpp's ``llama_ftype``."""


def read_card(parts: Parts) -> Fact[ModelCard]:
    """Return the card of a model by its files, the first part first, or why there is none. Takes up to a second."""
    if isinstance(parts, Unknown):
        return parts
    if Path(parts.value[0].path).name == CONFIG:
        return folder_card(parts.value[0].path, [part.path for part in parts.value])
    try:
        values, counts = dict[str, Value](), list[int]()
        for part in parts.value:
            with Path(part.path).open("rb") as file:
                head = Head(file, _LONGEST)
                values = {**head.values(whole=True), **values}
                counts.append(head.elements())
        return Known(_card(values, sum(counts)))
    except BadHeadError as error:
        return Unknown(f"{part.path}: {error}")
    except OSError as error:
        return Unknown(f"{part.path}: {error.strerror}")


def _card(values: Mapping[str, Value], parameters: int) -> ModelCard:
    architecture = _text(values, "general.architecture")
    context, file_type = values.get(f"{architecture}.context_length"), values.get("general.file_type")
    return ModelCard(
        architecture=architecture,
        title=_text(values, "general.name"),
        kind=_text(values, "general.type") or "model",
        parameters=parameters or None,
        quantization=_NAMES.get(file_type, f"type {file_type}") if isinstance(file_type, int) else "",
        context_length=context if isinstance(context, int) else None,
        chat_template=_text(values, "tokenizer.chat_template"),
    )


def _text(values: Mapping[str, Value], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""
