from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.dispatch.usage import Usage, usage

HEAD, TAIL = 2048, 8192


def seen(wire: bytes) -> Usage:
    return usage(wire[:HEAD], wire[-TAIL:])


def events(*said: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in said)


def chunked(answer: bytes, sizes: list[int]) -> bytes:
    """Frame an answer in chunks of these sizes, again and again, as Transfer-Encoding: chunked does."""
    wire, at, turn = b"", 0, 0
    while at < len(answer):
        chunk = answer[at : at + sizes[turn % len(sizes)]]
        wire += b"%x\r\n" % len(chunk) + chunk + b"\r\n"
        at, turn = at + len(chunk), turn + 1
    return wire + b"0\r\n\r\n"


TIMINGS = {"cache_n": 30, "prompt_n": 1, "prompt_ms": 12.5, "predicted_n": 128, "predicted_ms": 1280.5}
OPENAI = {"completion_tokens": 128, "prompt_tokens": 31, "total_tokens": 159}
WORD = {"choices": [{"index": 0, "delta": {"content": 'say "usage": {"prompt_tokens": 7}'}}], "usage": None}
LLAMA = events(WORD, WORD, {"choices": [], "usage": OPENAI, "timings": TIMINGS}) + b"data: [DONE]\n\n"
ANTHROPIC = (
    {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "so " * 50}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
)


def test_llama_server_says_its_counts_in_usage() -> None:
    assert seen(LLAMA) == Usage(31, 128)


def test_without_usage_timings_count_and_what_was_cached_is_of_the_prompt() -> None:
    assert seen(events({"content": "", "timings": TIMINGS})) == Usage(31, 128)
    assert seen(b'{"timings":{"prompt_n":5}}') == Usage(5)


def test_usage_wins_over_timings() -> None:
    answer = {"usage": {"prompt_tokens": 40, "completion_tokens": 7}, "timings": TIMINGS}
    assert seen(json.dumps(answer).encode()) == Usage(40, 7)
    answer = {"timings": TIMINGS, "usage": {"prompt_tokens": 40, "completion_tokens": 7}}
    assert seen(json.dumps(answer, indent=2).encode()) == Usage(40, 7)


def test_details_do_not_hide_the_counts() -> None:
    said = {**OPENAI, "prompt_tokens_details": {"cached_tokens": 16}, "completion_tokens_details": {"x": 1}}
    assert seen(json.dumps({"usage": said}).encode()) == Usage(31, 128)
    assert seen(json.dumps({"usage": {**OPENAI, "prompt_tokens_details": None}}).encode()) == Usage(31, 128)


@pytest.mark.parametrize("details", [[], [1], "cached_tokens", 7, True])
def test_details_that_are_no_object_say_nothing(details: object) -> None:
    assert seen(json.dumps({"usage": {**OPENAI, "prompt_tokens_details": details}}).encode()) == Usage(31, 128)


def test_what_is_nested_too_deeply_says_nothing() -> None:
    assert seen(b'{"usage":{"a":' + b"[" * 5000) == Usage()


def test_responses_name_input_and_output() -> None:
    said = {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 87}
    done = {"type": "response.completed", "response": {"usage": said, "user": None, "metadata": {}}}
    assert seen(events({"type": "response.created", "response": {"usage": None}}, done)) == Usage(36, 87)


@pytest.mark.parametrize("words", [1, 100])
def test_anthropic_says_the_prompt_at_the_begin_and_the_completion_at_the_end(words: int) -> None:
    start, word, end = ANTHROPIC
    assert seen(events(start, *[word] * words, end, {"type": "message_stop"})) == Usage(25, 15)


def test_anthropic_leaves_what_was_cached_out_of_the_prompt() -> None:
    said = {"input_tokens": 5, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3, "output_tokens": 9}
    assert seen(json.dumps({"content": [], "usage": said}).encode()) == Usage(28, 9)


def test_an_anthropic_stream_that_broke_off_does_not_say_what_came_out() -> None:
    start, word, _ = ANTHROPIC
    assert seen(events(start, *[word] * 100)) == Usage(25)


@pytest.mark.parametrize("size", [1, 5000])
def test_embeddings_say_their_prompt_before_the_numbers(size: int) -> None:
    answer = {"object": "list", "usage": {"prompt_tokens": 8, "total_tokens": 8}, "data": [{"embedding": [0.5] * size}]}
    assert seen(json.dumps(answer).encode()) == Usage(8)


def test_the_last_that_was_said_counts() -> None:
    steps = [{"usage": {"prompt_tokens": 31, "completion_tokens": count}} for count in range(1, 500)]
    assert seen(events(*steps)) == Usage(31, 499)
    assert seen(events(*steps)[:-30]) == Usage(31, 498)


def test_what_a_model_or_a_client_writes_is_not_counted() -> None:
    lie = '{"usage":{"prompt_tokens":1,"completion_tokens":1},"timings":{"predicted_ms":1}}'
    assert seen(json.dumps({"choices": [{"message": {"content": lie}}]}).encode()) == Usage()


@pytest.mark.parametrize("value", [-1, True, 2**53 + 1, 1.5, "12", None, [], {"n": 1}])
def test_what_is_no_count_is_unknown(value: object) -> None:
    counts = {"prompt_tokens": value, "completion_tokens": value, "prompt_tokens_details": {"cached_tokens": value}}
    assert seen(json.dumps({"usage": counts}).encode()) == Usage()
    assert seen(json.dumps({"usage": {"input_tokens": value, "output_tokens": value}}).encode()) == Usage()


def test_a_number_cut_by_a_chunk_is_one_number() -> None:
    assert seen(b'2c\r\n{"usage":{"prompt_tokens":3,"completion_tokens":1\r\n3\r\n28}\r\n1\r\n}\r\n0\r\n\r\n') == Usage(
        3, 128
    )


def test_a_number_cut_by_the_end_is_none() -> None:
    assert seen(b'{"usage":{"prompt_tokens":3,"completion_tokens":12') == Usage()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.sampled_from([LLAMA, events(*ANTHROPIC)]))
def test_chunks_do_not_change_what_is_said(sizes: list[int], answer: bytes) -> None:
    wire = chunked(answer, sizes)
    assert usage(wire[:HEAD], wire) == usage(answer, answer)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 4000), st.integers(0, 4000))
def test_what_is_read_of_a_part_is_right_or_unknown(sizes: list[int], begin: int, cut: int) -> None:
    wire = chunked(LLAMA, sizes)
    part, whole = usage(b"", wire[begin : len(wire) - cut]), seen(LLAMA)
    for name in ("prompt_tokens", "completion_tokens"):
        assert getattr(part, name) in {None, getattr(whole, name)}


PIECES = st.sampled_from(
    [
        *('"usage"', '"timings"', ":", "{", "}", "[", ",", " ", "\n", '"usage":{', '"timings":{', "[" * 3000, "NaN"),
        *('"prompt_tokens":', '"completion_tokens":', '"input_tokens":', '"output_tokens":', '"cached_tokens":', "3"),
        *('"prompt_tokens_details":{', '"prompt_n":', '"cache_n":', '"predicted_n":', '"predicted_ms":', "12", "-1"),
        *("1e999", "9" * 5000, "true", "null", '"', "\\", "\r\n1f\r\n", "\r\n", "\x80", '{"usage":' * 1200),
    ]
)
WIRES = st.binary(max_size=200) | st.lists(PIECES, max_size=14).map(lambda pieces: "".join(pieces).encode("latin-1"))


@given(WIRES, WIRES)
def test_whatever_comes_is_read_and_is_sane(head: bytes, tail: bytes) -> None:
    said = usage(head, tail)
    for count in (said.prompt_tokens, said.completion_tokens):
        assert count is None or (type(count) is int and 0 <= count <= 2**53)
