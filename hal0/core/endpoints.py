"""The paths of /v1: which type of slot serves each, whose errors it speaks, and where an engine has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hal0.core.enginekinds import ENGINES
from hal0.core.schema import Engine, SlotType, UpstreamApi


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path that takes a POST.

    ``takes_any``: a model name that nobody knows goes to the slot of ``type`` all the same, since clients send names
    like ``whisper-1`` there. ``is_form``: the body is multipart, and streamed up.
    """

    path: str
    type: SlotType
    api: UpstreamApi = UpstreamApi.OPENAI
    takes_any: bool = True
    is_form: bool = False


def _talk(path: str, api: UpstreamApi = UpstreamApi.OPENAI) -> Endpoint:
    return Endpoint(path, SlotType.LLM, api, takes_any=False)


ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        _talk("/v1/chat/completions"),
        _talk("/v1/completions"),
        _talk("/v1/responses"),
        _talk("/v1/messages", UpstreamApi.ANTHROPIC),
        _talk("/v1/messages/count_tokens", UpstreamApi.ANTHROPIC),
        _talk("/v1/tokenize"),
        _talk("/v1/infill"),
        Endpoint("/v1/embeddings", SlotType.EMBEDDING),
        Endpoint("/v1/rerank", SlotType.RERANKING),
        Endpoint("/v1/rerankings", SlotType.RERANKING),
        Endpoint("/v1/audio/transcriptions", SlotType.TRANSCRIPTION, is_form=True),
        Endpoint("/v1/audio/speech", SlotType.TTS),
        Endpoint("/v1/images/generations", SlotType.IMAGE),
        Endpoint("/v1/images/edits", SlotType.IMAGE, is_form=True),
    )
}


def engine_paths(engine: Engine, own: Mapping[str, str]) -> dict[str, str]:
    """Return where an engine serves those paths that it has elsewhere; a profile's own win."""
    return {**ENGINES[engine].paths, **own}
