"""How many tokens an answer took, read from its first and its last bytes alone, as they went over the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

Said: TypeAlias = Mapping[str, Any]
Counts: TypeAlias = tuple[int | None, int | None]  # of the prompt, of the completion

# The size line of a chunk. No JSON and no event has such a line of its own: JSON strings hold no line breaks.
_CHUNK = re.compile(rb"\r\n[0-9A-Fa-f]{1,16}(?:;[^\r\n]*)?\r\n")
_OBJECT = re.compile(r"[ \t\n\r]*:[ \t\n\r]*(?=\{)")
_PROMPT = re.compile(rb'"prompt_tokens" ?: ?(\d{1,9})[,}]')
_COMPLETION = re.compile(rb'"completion_tokens" ?: ?(\d{1,9})[,}]')
_decode = json.JSONDecoder().raw_decode
_MAX = 2**53


@dataclass(frozen=True, slots=True)
class Usage:
    """What one answer took; None is unknown."""

    prompt_tokens: int | None = None  # all of them, cached or not
    completion_tokens: int | None = None


def usage(head: bytes, tail: bytes) -> Usage:
    """Return what an answer says of its cost: in ``usage`` first, in llama-server's ``timings`` where that is silent.

    ``head`` is its first 2 KiB, ``tail`` its last 8; they may overlap, and hold the framing of chunks. The last that
    was said counts. Never raises: what is broken, compressed or absurd says nothing.
    """
    if plain := _plain(tail):
        return plain
    end = _text(tail)
    # Two, since a stream of Anthropic's says what went in when it begins, and what came out when it ends.
    found = [_counts(said) for said in islice(_objects(end, '"usage"'), 2)]
    if all(prompt is None for prompt, _ in found):
        begin = [_counts(said) for said in islice(_objects(_text(head), '"usage"'), 2)]
        found += [(prompt, None) for prompt, _ in begin]  # what comes out is not known yet
    timings = next(_objects(end, '"timings"'), {})
    found.append((_sum(timings.get("prompt_n"), timings.get("cache_n")), _count(timings.get("predicted_n"))))
    prompts, completions = zip(*found, strict=True)
    return Usage(_first(prompts), _first(completions))


def _plain(tail: bytes) -> Usage | None:
    """Return what a flat ``usage`` says, as most answers have it: a fraction of the cost of reading it as JSON."""
    begin = tail.rfind(b'"usage"')
    said = tail[begin : tail.find(b"}", begin) + 1]
    if said.count(b"{") != 1 or b"\r" in said:
        return None
    prompt, completion = _PROMPT.search(said), _COMPLETION.search(said)
    return Usage(int(prompt[1]), int(completion[1])) if prompt and completion else None


def _text(wire: bytes) -> str:
    """Return the bytes without the framing of chunks; every byte is a character, since only ASCII is looked for."""
    return (_CHUNK.sub(b"", wire) if b"\r\n" in wire else wire).decode("latin-1")


def _objects(text: str, name: str) -> Iterator[Said]:
    """Yield the objects of a quoted name, the last first. Inside a string the name's quotes would be escaped."""
    at = text.rfind(name)
    while at >= 0:
        if begin := _OBJECT.match(text, at + len(name)):
            try:
                said, _ = _decode(text, begin.end())
            except (ValueError, RecursionError):
                said = {}
            yield said
        at = text.rfind(name, 0, at)


def _counts(said: Said) -> Counts:
    """Return what a ``usage`` says: of OpenAI's completions, of its responses, or of Anthropic's messages."""
    # Only Anthropic's names leave what was cached out of the prompt.
    cached = (said.get("cache_read_input_tokens"), said.get("cache_creation_input_tokens"))
    prompt = _first((_count(said.get("prompt_tokens")), _sum(said.get("input_tokens"), *cached)))
    return prompt, _first((_count(said.get("completion_tokens")), _count(said.get("output_tokens"))))


def _first(counts: Iterable[int | None]) -> int | None:
    return next((count for count in counts if count is not None), None)


def _count(value: object) -> int | None:
    """Return a number of tokens; None for what is none, be it negative, true or beyond reason."""
    return value if type(value) is int and 0 <= value <= _MAX else None


def _sum(value: object, *more: object) -> int | None:
    """Return a number of tokens and those that add to it, where they are known."""
    count = _count(value)
    return None if count is None else _count(count + sum(_count(other) or 0 for other in more))
