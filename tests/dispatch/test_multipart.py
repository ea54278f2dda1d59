from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hal0.dispatch.multipart import Form, boundary_of

BOUNDARY = b"--WebKit.7MA4"
CLOSED = b"\r\n--" + BOUNDARY + b"--\r\n"
FIELD = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
LINE = re.compile(rb"\r\n--" + re.escape(BOUNDARY) + rb"(--|[ \t]*\r\n)")


@dataclass(frozen=True)
class Part:
    header: bytes
    content: bytes
    is_model: bool


def replaced(head: bytes, boundary: bytes, model: str) -> bytes:
    seen = Form(boundary)
    seen.look(head)
    return seen.renamed(head, model)


def form(*parts: tuple[bytes, bytes]) -> bytes:
    lines = [b"\r\n--" + BOUNDARY + b"\r\n" + header + b"\r\n\r\n" + content for header, content in parts]
    return b"".join(lines)[2:] + CLOSED


def looked(head: bytes) -> Form:
    seen = Form(BOUNDARY)
    seen.look(head)
    return seen


# What a file would hold to be taken for more than a file.
BAIT = [
    *(b"\r\n", b"\r\n\r\n", b"--", b"\r\n--", b"--" + BOUNDARY, b"\r\n--" + BOUNDARY, BOUNDARY, FIELD, b"chat", b"x"),
    *(b"\r\n" + FIELD + b"\r\n\r\n", b"\r\n--" + BOUNDARY[:-1] + b"\r\n", b"\n--" + BOUNDARY + b"\n", b"-", b" "),
]
CONTENTS = st.binary(max_size=40) | st.lists(st.sampled_from(BAIT), max_size=6).map(b"".join)
FIELDS = st.sampled_from(
    [
        FIELD,
        b"content-disposition:form-data;name=model",
        b'Content-Type: text/plain\r\nCONTENT-DISPOSITION: Form-Data; x="; name=y"; NAME="model"; charset=utf-8',
    ]
)
OTHERS = st.sampled_from(
    [
        FILE,
        b'Content-Disposition: form-data; name="language"',
        b'Content-Disposition: form-data; name="model"; filename="model"',
        b"Content-Disposition: form-data; filename*=UTF-8''m; name=model",
        b'Content-Disposition: form-data; name="file"; filename="; name=\\"model\\""',
        b'Content-Disposition: form-data; name="file; name="model"',
        b'Content-Disposition: form-data; name="model"; filename="C:\\music\\"',
        b'Content-Disposition: form-data; name="model" filename="a.wav"',
        b'Content-Disposition: attachment; name="model"',
        b'Content-Type: text/plain; name="model"',
        b'X-Content-Disposition: form-data; name="model"',
        b"X-Empty:",
    ]
)
PARTS = st.builds(Part, FIELDS, CONTENTS, st.just(True)) | st.builds(Part, OTHERS, CONTENTS, st.just(False))


@st.composite
def forms(draw: st.DrawFn) -> list[Part]:
    parts = draw(st.lists(PARTS, max_size=4))
    # A boundary is what no part holds.
    assume(not any(LINE.search(b"\r\n" + part.content + b"\r\n") for part in parts))
    return parts


def written(parts: list[Part]) -> bytes:
    return form(*((part.header, part.content) for part in parts)) if parts else CLOSED[2:]


@given(forms(), st.sampled_from([b"", b"\r\n", b"a preamble\r\nof two lines\r\n", b"--" + BOUNDARY + b"x\r\n"]))
def test_the_model_is_the_first_field_of_that_name_whatever_files_hold(parts: list[Part], preamble: bytes) -> None:
    models = [part.content for part in parts if part.is_model]
    seen = looked(preamble + written(parts))
    assert seen.model == (models[0].decode(errors="replace") if models else None)
    assert seen.has_ended


@given(forms())
def test_replacing_the_model_changes_nothing_but_the_model(parts: list[Part]) -> None:
    first = next((at for at, part in enumerate(parts) if part.is_model), len(parts))
    changed = [Part(part.header, b"smollm2", True) if at == first else part for at, part in enumerate(parts)]
    assert replaced(written(parts), BOUNDARY, "smollm2") == written(changed)


@given(forms(), st.lists(st.integers(1, 30), max_size=30))
def test_a_form_is_read_alike_in_whatever_pieces_it_comes(parts: list[Part], sizes: list[int]) -> None:
    whole, head, seen = written(parts), bytearray(), Form(BOUNDARY)
    for size in [*sizes, len(whole)]:
        head += whole[len(head) : len(head) + size]
        seen.look(head)
        alone = looked(bytes(head))
        assert (seen.model, seen.span, seen.has_ended) == (alone.model, alone.span, alone.has_ended)
    assert seen.has_ended


@given(forms(), st.integers(0, 400))
def test_a_model_is_known_only_when_all_of_it_is_there(parts: list[Part], size: int) -> None:
    whole = written(parts)
    part = looked(whole[:size])
    if part.model is not None:
        assert (part.model, part.span) == (looked(whole).model, looked(whole).span)
    assert part.has_ended <= (size >= len(whole) - len(b"\r\n"))


@given(st.binary(max_size=200), st.binary(max_size=4))
def test_whatever_comes_is_read(head: bytes, boundary: bytes) -> None:
    seen = Form(boundary)
    seen.look(head)
    assert (seen.model is None) == (seen.span is None)


def test_a_form_as_curl_sends_it() -> None:
    body = form((FILE, b'RIFF\x00\xff name="model"\r\n\r\nnot me'), (FIELD, b"whisper-1"))
    seen = looked(body)
    assert (seen.model, seen.has_ended) == ("whisper-1", True)
    assert seen.span is not None
    assert body[slice(*seen.span)] == b"whisper-1"


def test_a_part_of_which_the_boundary_has_not_come_is_not_known_yet() -> None:
    body = form((FIELD, b"whisper"), (FILE, b"RIFF"))
    behind = body.index(b"whisper") + len(b"whisper\r\n--" + BOUNDARY)
    assert looked(body[:behind]).model is None
    assert looked(body[: behind + 1]).model is None
    assert looked(body[: behind + 2]).model == "whisper"


def test_a_head_without_its_model_is_not_rewritten() -> None:
    head = form((FIELD, b"whisper"))[:60]
    assert replaced(head, BOUNDARY, "other") is head


def test_a_model_sent_empty_is_there_and_empty() -> None:
    assert looked(form((FIELD, b""))).model == ""
    assert replaced(form((FIELD, b"")), BOUNDARY, "chat") == form((FIELD, b"chat"))


def test_a_part_without_headers_has_no_name_whatever_it_holds() -> None:
    headless = b"--" + BOUNDARY + b"\r\n\r\n" + FIELD + b"\r\n\r\nchat" + CLOSED
    assert looked(headless).model is None
    assert looked(headless).has_ended


def test_a_form_of_nothing_has_ended() -> None:
    assert looked(b"--" + BOUNDARY + b"--").has_ended
    assert looked(b"--" + BOUNDARY + CLOSED).has_ended


def test_a_header_without_end_is_not_searched_for_a_name() -> None:
    body = form((b"X-Long: " + b"x" * 10_000 + b"\r\n" + FIELD, b"chat"))
    assert looked(body).model is None
    assert looked(body).has_ended


def test_a_boundary_with_blanks_behind_it_is_one() -> None:
    body = form((FIELD, b"chat")).replace(BOUNDARY + b"\r\n", BOUNDARY + b" \t\r\n")
    assert looked(body).model == "chat"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4"),
        ("Multipart/Form-Data;charset=utf-8;BOUNDARY=abc", b"abc"),
        ('multipart/form-data; boundary="a b;c=d"', b"a b;c=d"),
        ('multipart/form-data; boundary="a\\"b"; charset=utf-8', b'a"b'),
        ('multipart/form-data; x="; boundary=no"; boundary=yes', b"yes"),
        ("multipart/form-data; xboundary=no; boundary==_Part=1;", b"=_Part=1"),
        ("multipart/form-data; boundary=first; boundary=second", b"first"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ('multipart/form-data; boundary=""', None),
        ('multipart/form-data; boundary="open', None),
        ("multipart/form-data; boundary=é", None),
        ("multipart/form-data-x; boundary=abc", None),
        ("multipart/mixed; boundary=abc", None),
        ("application/json; boundary=abc", None),
        ("", None),
    ],
)
def test_a_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


@given(st.text(max_size=40).map("multipart/form-data;".__add__) | st.text(max_size=20))
def test_whatever_the_content_type_says_is_read(content_type: str) -> None:
    boundary = boundary_of(content_type)
    assert boundary is None or boundary
