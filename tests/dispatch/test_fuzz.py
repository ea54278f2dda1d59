"""Whatever comes over a real socket is answered by an engine or refused in the envelope, and nothing of hal0 breaks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse, IncompleteRead
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from plane import Bench, engine_on, error_of, host, many_clients, raw, served, until, upstream, url_of
from scenes import MODEL, Scene, slot

from hal0.core.endpoints import ENDPOINTS
from hal0.core.schema import SlotType
from hal0.core.validate import did_you_mean

MIB = 2**20
PATHS = sorted(ENDPOINTS)
FORMS = [path for path in PATHS if ENDPOINTS[path].is_form]
TYPES = [kind.value for kind in SlotType]
quick = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],  # what is found here is found again in a moment: shrinking takes long
)


@dataclass
class Target:
    """A hal0 with a slot of every type and an upstream; whatever reaches one of them is answered with a mark."""

    socket: Path
    log: pytest.LogCaptureFixture

    async def ask(self, request: bytes) -> tuple[HTTPResponse, bytes]:
        """Send bytes, and return the first answer to them with its body."""
        wire = await raw(self.socket, request)
        response = HTTPResponse(_Wire(wire), method=request.partition(b" ")[0].decode("latin-1"))  # type: ignore[arg-type]
        response.begin()
        return response, response.read()

    async def sound(self, path: str, request: bytes) -> tuple[int, str]:
        """Send a request; check that the answer is one that a client can read, and return its status and code."""
        response, body = await self.ask(request)
        self.check_log()
        status = response.status
        if response.getheader("x-mark") or (status == 200 and path not in ENDPOINTS):
            return status, ""
        assert 400 <= status < 500 or status in {502, 503}, (status, body)
        said = json.loads(body) if body else {"error": {"message": "", "type": "", "param": None, "code": ""}}
        if path.startswith("/v1/messages") and path in ENDPOINTS:
            assert (set(said), said["type"]) == ({"type", "error"}, "error")
            return status, str(said["error"]["code"])
        return status, error_of(said)[1]

    def check_log(self) -> None:
        """Fail where hal0 broke on something, or logged what is not one line."""
        wrong = [record for record in self.log.records if record.levelno >= logging.WARNING or record.exc_info]
        assert [record.getMessage() for record in wrong] == []
        self.log.clear()


class _Wire:
    """What ``HTTPResponse`` reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> BytesIO:
        return BytesIO(self._data)


async def marked(_: web.Request) -> web.StreamResponse:
    return web.json_response({}, headers={"X-Mark": "yes"})


@asynccontextmanager
async def lenient() -> AsyncIterator[int]:
    """Run an engine that takes every head, since hal0 is what is tested; return its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(lengths[-1]) if lengths else 0)
                body = LIST if head.startswith(b"GET ") else b"{}"
                writer.write(b"HTTP/1.1 200 OK\r\nX-Mark: yes\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


LIST = b'{"data": [{"id": "big"}]}'


@pytest.fixture
async def target(scene: Scene, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Target]:
    caplog.set_level(logging.INFO)
    async with AsyncExitStack() as stack:
        manifests = [MODEL]
        for kind in TYPES:
            port = await stack.enter_async_context(lenient())
            manifests.append(slot(kind, type=kind, port=port, aliases=f"[{kind}-1]", set="{seed: 1}"))
        far = await stack.enter_async_context(lenient())
        manifests.append(upstream("far", url_of(far)))
        _, socket = await stack.enter_async_context(served(scene, *manifests))
        made = Target(socket, caplog)
        await made.ask(post("/v1/completions", b'{"model": "far/big"}'))
        caplog.clear()
        yield made


# What is sent.

texts = st.text(max_size=30) | st.sampled_from(
    ["\x00", "\ud800", "\n", "a\r\nb", "\u2028", "日本", "é" * 200, '"', "\\"]
)
names = st.sampled_from(
    ["llm", "hal0/llm", "LLM", "llm-1", "m", "embedding", "image", "big", "far/big", "far/x", "x:y"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.integers(10**300, 10**320),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["model", "stream", "messages", "keep_alive", "seed", "prompt", "input"]) | texts
bodies = st.one_of(
    st.dictionaries(keys, values, max_size=6),
    st.builds(lambda body, name: body | {"model": name}, st.dictionaries(keys, values, max_size=4), names),
    values,
)
encodings = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be", "latin-1"])


def encoded(body: object, encoding: str, indent: int | None, ascii_only: bool) -> bytes:
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    return text.encode(encoding, errors="replace" if encoding == "latin-1" else "surrogatepass")


json_bytes = st.builds(encoded, bodies, encodings, st.sampled_from([None, 1]), st.booleans())


@st.composite
def broken_bytes(draw: st.DrawFn) -> bytes:
    """A JSON body of which some was lost, doubled or overwritten; or anything at all."""
    body = draw(json_bytes)
    begin, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
    return draw(st.sampled_from([body[:begin] + body[end:], body[:end] + body[begin:], body[:begin] + b"\xff"]))


tokens = st.text("abcXYZ019!#$%&'*+.^_`|~-", min_size=1, max_size=20)
field_values = st.binary(max_size=60).map(
    lambda value: bytes(byte for byte in value if byte not in {0, 10, 13, 127} and (byte >= 32 or byte == 9)).strip()
)
odd_headers = st.tuples(tokens.map(str.encode), field_values)
known_headers = st.sampled_from(
    [
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"Content-Type", b"multipart/form-data"),
        (b"Content-Type", b"\xff"),
        (b"Prefer", b"wait=0"),
        (b"Prefer", b"wait=99999999999"),
        (b"Prefer", b"wait=-1, wait=x"),
        (b"X-Request-Id", b"mine"),
        (b"X-Request-Id", b"\xe9\xe9"),
        (b"X-Request-Id", b"a" * 1000),
        (b"Authorization", b"Bearer x"),
        (b"Cookie", b"a=b"),
        (b"Connection", b"X-Odd, keep-alive"),
        (b"Connection", b",,,"),
        (b"Expect", b"100-continue"),
        (b"Expect", b"nonsense"),
        (b"TE", b"trailers"),
        (b"Accept-Encoding", b"gzip, br"),
        (b"Host", b"again"),
    ]
)
FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"upgrade"}
headers = st.lists(known_headers | odd_headers.filter(lambda pair: pair[0].lower() not in FRAMING), max_size=6)


def post(path: str, body: bytes, more: list[tuple[bytes, bytes]] | None = None, *, method: str = "POST") -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method.encode(), path.encode()), b"Host: x", b"Connection: close"]
    lines += [b"Content-Length: %d" % len(body), *(b"%b: %b" % pair for pair in more or [])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# Bodies.


@quick
@given(path=st.sampled_from(PATHS), body=json_bytes)
async def test_any_json_to_any_endpoint_is_answered_or_refused_in_the_envelope(
    target: Target, path: str, body: bytes
) -> None:
    more = [(b"Content-Type", b"application/json")] if path in FORMS else None
    status, code = await target.sound(path, post(path, body, more))
    expected = {"", "model.not_found", "request.invalid_json", "request.invalid_form", "request.invalid_keep_alive"}
    assert code in expected, (status, code)


@quick
@given(path=st.sampled_from(PATHS), body=broken_bytes() | st.binary(max_size=100))
async def test_any_bytes_to_any_endpoint_are_answered_or_refused_in_the_envelope(
    target: Target, path: str, body: bytes
) -> None:
    await target.sound(path, post(path, body))


@quick
@given(path=st.sampled_from(PATHS), more=headers, body=json_bytes)
async def test_any_headers_are_taken_or_refused(
    target: Target, path: str, more: list[tuple[bytes, bytes]], body: bytes
) -> None:
    await target.sound(path, post(path, body, more))


@quick
@given(st.data())
async def test_a_body_in_any_chunks_is_taken(target: Target, data: st.DataObject) -> None:
    body = json.dumps({"model": "llm", "text": data.draw(texts)}).encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=8)))
    parts = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert await target.sound("/v1/completions", head + wire) == (200, "")


BODIES = {
    "a list without end": b"[" * 100_000,
    "objects without end": b'{"model":' * 50_000,
    "a number of many digits": b'{"model": "llm", "n": ' + b"1" * 100_000 + b"}",
    "a keep_alive beyond floats": b'{"model": "llm", "keep_alive": 1' + b"0" * 400 + b"}",
    "a keep_alive that is endless": b'{"model": "llm", "keep_alive": 1e999}',
    "names twice": b'{"model": "llm", "model": "nobody"}',
    "a name with escapes": b'{"m\\u006fdel": "llm"}',
    "half a surrogate": b'{"model": "\\ud800"}',
    "no number": b'{"model": "llm", "n": NaN}',
    "a byte order mark": b'\xef\xbb\xbf{"model": "llm"}',
    "NUL": b"\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
async def test_bodies_that_are_known_to_break_others_break_nothing(target: Target, path: str, body: bytes) -> None:
    await target.sound(path, post(path, body))


async def test_a_model_name_of_many_letters_is_not_compared_with_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def note(word: str, names: Iterable[str]) -> str:
        compared.append(len(word))
        return did_you_mean(word, names)

    monkeypatch.setattr("hal0.dispatch.dispatcher.did_you_mean", note)
    status, said = await bench.said({"model": "x" * 100_000})
    assert (status, error_of(said)[1]) == (404, "model.not_found")
    assert len(said["error"]["message"]) < 2000
    assert all(length <= 1000 for length in compared)


# Targets, methods and bytes.

TARGETS = ["*", "http://[/", "http://x/v1/models", "//", "/%", "/v1/models/%f0%9f", "/v1/models/a%0d%0ab", "/upstream/"]


@pytest.mark.parametrize("target_", TARGETS)
async def test_targets_that_are_known_to_break_others_break_nothing(target: Target, target_: str) -> None:
    await target.sound(target_, post(target_, b"", method="GET"))


async def test_a_number_of_many_digits_is_the_clients_mistake(target: Target) -> None:
    path = "/api/slots/llm/logs?lines=" + "9" * 5000
    assert await target.sound(path, post(path, b"", method="GET")) == (400, "request.refused")


segments = st.sampled_from(
    [
        "v1",
        "models",
        "api",
        "upstream",
        "llm",
        "..",
        ".",
        "",
        "%2e%2e",
        "%00",
        "%ff",
        "%",
        "chat",
        "slots",
        "é",
        "a b",
        "x" * 500,
    ]
)
targets = st.one_of(
    st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts)),
    st.text("abc/?#%&=.:@[]~;,+*!'()", max_size=30),
    st.sampled_from(
        ["*", "/", "//", "http://x/v1/models", "/v1/models?x=%ff", "/v1/models/%f0%9f", "x:80", "/upstream/"]
    ),
)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND"])


@quick
@given(method=methods, path=targets)
async def test_any_method_on_any_target_is_answered(target: Target, method: str, path: str) -> None:
    with suppress(IncompleteRead):  # of an answer to CONNECT, which this reader takes for one without end
        await target.sound(path, post(path, b"", method=method))


@quick
@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            [
                b"GET ",
                b"/",
                b" HTTP/1.1\r\n",
                b"\r\n",
                b"Host: x\r\n",
                b"Content-Length: 5\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"\n",
                b"Content-Length: -1\r\n",
                b"POST /v1/completions HTTP/1.1\r\n",
                b"{}",
                b"\x16\x03\x01",
            ]
        ),
        max_size=12,
    ).map(b"".join)
)
async def test_any_bytes_on_a_connection_end_it_at_the_most(target: Target, wire: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(target.socket))
    with suppress(ConnectionError):
        writer.write(wire)
        writer.write_eof()
        async with asyncio.timeout(10):
            said = await reader.read()
            assert b" 500 " not in said.partition(b"\r\n")[0]
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    target.check_log()
    assert (await target.ask(post("/v1/models", b"", method="GET")))[0].status == 200


# Forms.

BOUNDARY = b"x-boundary-x"


@dataclass
class Part:
    """One part of a form."""

    header: bytes
    content: bytes

    def __bytes__(self) -> bytes:
        return b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY, self.header, self.content)


def field_of(name: bytes, content: bytes) -> Part:
    return Part(b'Content-Disposition: form-data; name="%b"' % name, content)


def file_of(content: bytes) -> Part:
    return Part(b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav', content)


def form_of(*parts: Part, preamble: bytes = b"") -> bytes:
    return preamble + b"".join(map(bytes, parts)) + b"--%b--\r\n" % BOUNDARY


AS_FORM = [(b"Content-Type", b"multipart/form-data; boundary=" + BOUNDARY)]
contents = st.binary(max_size=300).filter(lambda content: BOUNDARY not in content)
fields = st.builds(field_of, st.sampled_from([b"language", b"prompt", b"modell", b"file"]), contents)
files = st.builds(file_of, contents)


@pytest.fixture
async def ears(scene: Scene) -> AsyncIterator[Bench]:
    """A hal0 with a slot that listens; its engine's answer is marked."""
    async with engine_on(answer=marked) as engine:
        ears = slot("ears", type="transcription", port=engine.port)
        async with served(scene, MODEL, host(max_body="64Mi"), ears) as (client, socket):
            yield Bench(scene, engine, client, socket)


async def transcribed(ears: Bench, form: bytes, more: list[tuple[bytes, bytes]] | None = None) -> bytes:
    """Send a form, and return what the engine got."""
    ears.engine.bodies.clear()
    answer = await raw(ears.socket, post("/v1/audio/transcriptions", form, AS_FORM if more is None else more))
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    return ears.engine.bodies[0]


@quick
@given(
    before=st.lists(fields | files, max_size=4),
    after=st.lists(fields | files, max_size=4),
    model=st.text("abc-é/:", max_size=20),
)
async def test_a_form_goes_on_as_it_came_but_for_the_model(
    ears: Bench, before: list[Part], after: list[Part], model: str
) -> None:
    sent = form_of(*before, field_of(b"model", model.encode()), *after)
    assert await transcribed(ears, sent) == form_of(*before, field_of(b"model", b"m"), *after)


@quick
@given(st.lists(fields | files, max_size=5))
async def test_a_form_without_a_model_goes_on_as_it_came(ears: Bench, parts: list[Part]) -> None:
    assert await transcribed(ears, form_of(*parts)) == form_of(*parts)


async def test_of_two_models_the_first_counts_and_the_other_is_left(ears: Bench) -> None:
    sent = form_of(field_of(b"model", b"one"), file_of(b"RIFF"), field_of(b"model", b"two"))
    expected = form_of(field_of(b"model", b"m"), file_of(b"RIFF"), field_of(b"model", b"two"))
    assert await transcribed(ears, sent) == expected


@pytest.mark.parametrize("size", [100_000, 250_000, 300_000, 3 * MIB])
async def test_a_model_behind_a_large_file_is_changed_where_it_is_seen_and_else_left(ears: Bench, size: int) -> None:
    parts = [file_of(b"\x00" * size), field_of(b"model", b"whisper-1")]
    seen = await transcribed(ears, form_of(*parts))
    changed = form_of(parts[0], field_of(b"model", b"m"))
    assert seen in {form_of(*parts), changed}
    assert seen == changed or size > 200_000


@pytest.mark.parametrize("size", [10, 100_000, MIB])
async def test_a_preamble_of_any_size_goes_on(ears: Bench, size: int) -> None:
    sent = form_of(file_of(b"RIFF"), preamble=b"p" * size + b"\r\n")
    assert await transcribed(ears, sent) == sent


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary="x',
        b"text/plain",
        b"multipart/mixed; boundary=x",
        b"\xff",
    ],
)
async def test_a_form_without_a_boundary_is_refused(ears: Bench, content_type: bytes) -> None:
    more = [(b"Content-Type", content_type)] if content_type else []
    answer = await raw(ears.socket, post("/v1/audio/transcriptions", form_of(file_of(b"RIFF")), more))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert error_of(json.loads(answer.partition(b"\r\n\r\n")[2])) == ("invalid_request_error", "request.invalid_form")
    assert ears.engine.asked == []


@pytest.mark.parametrize(
    "sent",
    [
        form_of(file_of(b"RIFF")).replace(BOUNDARY, b"other"),
        form_of(file_of(b"RIFF"))[:-10],
        form_of(field_of(b"model", b"x")).replace(b"\r\n", b"\n"),
        b"--" + BOUNDARY,
        b"--" + BOUNDARY + b"--",
        b"\r\n--" * 50_000,
        b"",
        b"--" + BOUNDARY + b"\r\n" + b"X: y\r\n" * 5000,
    ],
    ids=["of others", "cut off", "line feeds only", "half", "none", "all dashes", "empty", "headers without end"],
)
async def test_a_form_that_is_broken_is_the_engines_to_judge(ears: Bench, sent: bytes) -> None:
    assert await transcribed(ears, sent) == sent


async def test_a_request_for_a_transcription_in_json_is_taken(ears: Bench) -> None:
    async with ears.client.post("/v1/audio/transcriptions", json={"model": "whisper-1", "file": "x"}) as answer:
        assert answer.status == 200
    assert ears.engine.said == [{"model": "m", "file": "x"}]


# Large uploads.


@dataclass
class Sink:
    """An engine that keeps nothing of what it gets but a digest. It begins to read when it is let."""

    port: int = 0
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await self.reads.wait()
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while self.size < length and (piece := await reader.read(65536)):
            self.size += len(piece)
            self.digest.update(piece)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def sinking(scene: Scene, max_body: str = "64Mi") -> AsyncIterator[tuple[Sink, Path]]:
    sink = Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0)
    async with server:
        sink.port = server.sockets[0].getsockname()[1]
        ears = slot("ears", type="transcription", port=sink.port)
        async with served(scene, MODEL, host(max_body=max_body), ears) as (_, socket):
            try:
                yield sink, socket
            finally:
                sink.reads.set()


PIECE = bytes(range(256)) * 256
PIECES = 20 * MIB // len(PIECE)
BEGIN = bytes(field_of(b"model", b"whisper-large-v3")) + bytes(file_of(b""))[:-2]
END = b"\r\n--%b--\r\n" % BOUNDARY


@dataclass
class Uploader:
    """A client that sends 20 MiB piece by piece. ``sent`` counts what the system took of it."""

    writer: asyncio.StreamWriter
    sent: int = 0

    async def send(self) -> None:
        length = len(BEGIN) + PIECES * len(PIECE) + len(END)
        head = post("/v1/audio/transcriptions", b"", AS_FORM).replace(b"Length: 0", b"Length: %d" % length)
        self.writer.write(head + BEGIN)
        for _ in range(PIECES):
            self.writer.write(PIECE)
            await self.writer.drain()
            self.sent += len(PIECE)
        self.writer.write(END)
        await self.writer.drain()


def expected() -> str:
    digest = hashlib.sha256(BEGIN.replace(b"whisper-large-v3", b"m"))
    for _ in range(PIECES):
        digest.update(PIECE)
    digest.update(END)
    return digest.hexdigest()


async def test_twenty_megabytes_pass_with_little_memory_and_but_for_the_model_as_they_are(scene: Scene) -> None:
    async with sinking(scene) as (sink, socket):
        sink.reads.set()
        reader, writer = await asyncio.open_unix_connection(str(socket))
        tracemalloc.start()
        try:
            async with asyncio.timeout(60):
                await Uploader(writer).send()
                answer = await reader.read()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            writer.close()
            await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert sink.digest.hexdigest() == expected()
    assert peak < 4 * MIB


async def test_an_upload_is_held_back_while_its_engine_takes_nothing(scene: Scene) -> None:
    async with sinking(scene) as (sink, socket):
        reader, writer = await asyncio.open_unix_connection(str(socket))
        client = Uploader(writer)
        sending = asyncio.create_task(client.send())
        await until(lambda: client.sent > 0)
        before = -1
        while client.sent > before:  # until nothing moves
            before = client.sent
            await asyncio.sleep(0.1)
        assert client.sent < 16 * MIB
        sink.reads.set()
        async with asyncio.timeout(60):
            await sending
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        await writer.wait_closed()
    assert sink.digest.hexdigest() == expected()


async def _pieces(count: int) -> AsyncIterator[bytes]:
    yield BEGIN
    for _ in range(count):
        yield PIECE
    yield END


async def test_a_form_without_a_length_that_is_too_large_is_not_passed_on(scene: Scene) -> None:
    async with engine_on(answer=marked) as engine:
        scene.declare(MODEL, host(max_body="1Mi"), slot("ears", type="transcription", port=engine.port))
        await scene.settle()
        async with many_clients(scene) as client:
            kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
            path = "/v1/audio/transcriptions"
            async with client.post(path, data=_pieces(2), headers=kind) as answer:
                assert answer.status == 200
            assert await _told(client, path, kind) == (413, "request.too_large")
    assert len(engine.bodies) == 1


async def _told(client: ClientSession, path: str, headers: dict[str, str]) -> tuple[int, str]:
    async with client.post(path, data=_pieces(64), headers=headers) as answer:
        return answer.status, (await answer.json())["error"]["code"]
