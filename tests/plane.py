"""hal0's real application over a scene, with engines, upstreams and clients on real sockets: for tests of requests."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import scenes
from aiohttp import ClientResponse, ClientSession, ClientTimeout, FormData, TCPConnector, UnixConnector, web
from fakes import FakeRuntime
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from scenes import MODEL, Scene, slot

from hal0.core.state import SlotState
from hal0.host.ports import USE
from hal0.web.app import serving

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
CHAT = "/v1/chat/completions"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PATIENCE = 10.0
_TIMEOUT = ClientTimeout(total=_PATIENCE)
_TURN = 0.005
_BACKLOG = 1024


async def hello(_: web.Request) -> web.StreamResponse:
    return web.json_response({"said": "hello"})


@dataclass
class Engine:
    """A tiny real HTTP server in the place of an engine or an upstream.

    It notes what it is asked, how many requests it had at once, and answers as it is told.
    """

    answer: Answer = hello
    port: int = 0
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    now: int = 0
    most: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.set()
        try:
            response = await self.answer(request)
            self.ended.set()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        else:
            return response
        finally:
            self.now -= 1

    @property
    def said(self) -> list[Any]:
        """The bodies that it got, read as JSON; a request without one is left out."""
        return [json.loads(body) for body in self.bodies if body]


@asynccontextmanager
async def engine_on(port: int = 0, answer: Answer = hello) -> AsyncIterator[Engine]:
    """Run an engine. At its end every answer that is under way breaks off."""
    made = Engine(answer)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_TURN)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, backlog=_BACKLOG).start()
        made.port = runner.addresses[0][1]
        yield made
    finally:
        await runner.cleanup()


@dataclass
class Bench:
    """hal0's real application over a scene, an engine, and a client of hal0 on its unix socket."""

    scene: Scene
    engine: Engine
    client: ClientSession
    socket: Path

    async def ask(self, body: dict[str, object] | None = None, **more: object) -> ClientResponse:
        """Ask for a chat completion of the slot."""
        text = {"model": "chat", "messages": []} | (body or {})
        return await self.client.post(CHAT, json=text, **more)  # type: ignore[arg-type]

    async def said(self, body: dict[str, object] | None = None, **more: object) -> tuple[int, Any]:
        """Ask, and return the answer's status and what it says."""
        async with await self.ask(body, **more) as answer:
            return answer.status, await answer.json()

    async def warm(self) -> None:
        """Ask once, so that a connection to the engine is there; forget that it was asked."""
        async with await self.ask() as answer:
            await answer.read()
        self.engine.asked.clear()
        self.engine.bodies.clear()
        self.engine.begun.clear()


@asynccontextmanager
async def served(scene: Scene, *manifests: dict[str, str]) -> AsyncIterator[tuple[ClientSession, Path]]:
    """Serve a scene as the daemon does, and return a client on its unix socket, and the socket.

    With manifests, these are put in the place of all that were there, and the scene is settled first.
    """
    if manifests:
        scene.declare(*manifests)
        await scene.settle()
    path = scene.folder / "run" / "hal0.sock"
    async with (
        serving(scene.reconciler, listen=f"127.0.0.1:{free_port()}", socket=path),
        ClientSession("http://hal0", connector=UnixConnector(str(path)), timeout=_TIMEOUT) as client,
    ):
        yield client, path


@asynccontextmanager
async def served_on_tcp(scene: Scene, port: int = 0) -> AsyncIterator[str]:
    """Serve a scene as the daemon does, and return its address for clients."""
    address = f"127.0.0.1:{port or free_port()}"
    async with serving(scene.reconciler, listen=address, socket=scene.folder / "hal0.sock"):
        yield f"http://{address}"


@asynccontextmanager
async def bench_of(scene: Scene, engine: Engine, **settings: object) -> AsyncIterator[Bench]:
    """Serve one slot called ``chat`` with an engine behind it; settle the scene, whatever comes of it."""
    async with served(scene, MODEL, slot("chat", port=engine.port, **settings)) as (client, path):
        yield Bench(scene, engine, client, path)


@asynccontextmanager
async def many_clients(scene: Scene) -> AsyncIterator[ClientSession]:
    """Serve a scene, and return a client that opens as many connections as it is asked to."""
    async with (
        served_on_tcp(scene) as address,
        ClientSession(address, connector=TCPConnector(limit=0), timeout=_TIMEOUT) as client,
    ):
        yield client


@asynccontextmanager
async def scene_in(folder: Path) -> AsyncIterator[Scene]:
    """Return a scene in a folder of its own; another hal0 on the same machine has another one."""
    folder.mkdir(parents=True, exist_ok=True)
    async with scenes.scene(folder) as made:
        yield made


@dataclass
class LiveRuntime(FakeRuntime):
    """A runtime whose engines are real: one comes up on a slot's port at its start, and dies at its stop."""

    ports: dict[str, int] = field(default_factory=dict)
    answer: Answer = hello
    engines: list[Engine] = field(default_factory=list)
    running: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start(self, slot: str) -> None:
        await super().start(slot)
        self.running[slot] = AsyncExitStack()
        self.engines.append(await self.running[slot].enter_async_context(engine_on(self.ports[slot], self.answer)))

    async def stop(self, slot: str) -> None:
        await super().stop(slot)
        if stack := self.running.pop(slot, None):
            await stack.aclose()

    async def stop_all(self) -> None:
        for stack in self.running.values():
            await stack.aclose()


@asynccontextmanager
async def live(scene: Scene, *names: str, answer: Answer = hello) -> AsyncIterator[LiveRuntime]:
    """Give a scene real engines, each on a port of its own."""
    runtime = LiveRuntime(scene.host, ports={name: free_port() for name in names}, answer=answer)
    scene.runtime = runtime
    scene.reconciler = scene.make()
    try:
        yield runtime
    finally:
        await runtime.stop_all()


@asynccontextmanager
async def awake(scene: Scene) -> AsyncIterator[None]:
    """Let the loop run beside the test as the daemon's does: a pass when one is due, and time that goes by."""

    now, queue, is_over = asyncio.get_running_loop().time, scene.reconciler.queue, asyncio.Event()

    async def drive() -> None:
        while not is_over.is_set():
            began = now()
            if keys := queue.take(scene.clock.now()):
                await scene.reconciler.run(keys)
            else:
                await queue.wait(scene.clock.now())
            scene.clock.forward(now() - began)

    task = asyncio.create_task(drive())
    try:
        yield
    finally:
        is_over.set()
        queue.add(USE)
        await task


async def until(what: Callable[[], object]) -> None:
    """Wait until something is so that no event tells of."""
    async with asyncio.timeout(_PATIENCE):
        while not what():  # noqa: ASYNC110  (nothing tells)
            await asyncio.sleep(_TURN)


def ready(scene: Scene, *names: str) -> Callable[[], bool]:
    """Return whether slots are ready."""
    return lambda: all(scene.states().get(name) is SlotState.READY for name in names or ("chat",))


def model(name: str, folder: Path | None = None) -> dict[str, str]:
    """Return the manifest of one more model; its file is made below the scene's folder."""
    if folder is not None:
        (folder / "models" / f"{name}.gguf").touch()
    return {f"model-{name}.yaml": f"kind: Model\nname: {name}\npath: {name}.gguf\n"}


def upstream(name: str, url: str, **settings: object) -> dict[str, str]:
    """Return the manifest of one upstream."""
    extra = "".join(f"{key}: {value}\n" for key, value in settings.items())
    return {f"{name}.yaml": f"kind: Upstream\nname: {name}\nbase_url: {url}\n{extra}"}


def url_of(port: int) -> str:
    """Return the base address of an upstream on a port."""
    return f"http://127.0.0.1:{port}/v1"


def host(**settings: object) -> dict[str, str]:
    """Return the manifest of the host."""
    extra = "".join(f"{key}: {value}\n" for key, value in settings.items())
    return {"host.yaml": f"kind: Host\n{extra}"}


def sse(*chunks: bytes) -> Answer:
    """Return an answer that streams chunks as they are."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    return answer


def gated(gate: asyncio.Event, *, first: bytes = b"") -> Answer:
    """Return an answer that ends when a gate opens; ``first`` is streamed before."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if first:
            await response.prepare(request)
            await response.write(first)
        await gate.wait()
        await response.prepare(request)
        await response.write(b"data: [DONE]\n\n")
        return response

    return answer


async def said(client: ClientSession, path: str = CHAT, body: object = None, **headers: str) -> tuple[int, Any]:
    """Ask, and return the answer's status and what it says."""
    async with client.post(path, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


def recording(size: int = 4000, *, model: str = "whisper-1") -> FormData:
    """Return what a client sends to have a recording transcribed."""
    form = FormData({"model": model})
    form.add_field("file", BytesIO(b"RIFF" * (size // 4)), filename="a.wav", content_type="audio/wav")
    return form


async def holds(what: Callable[[], Awaitable[object]]) -> None:
    """Ask until the answer is yes, where no event tells."""
    async with asyncio.timeout(_PATIENCE):
        while not await what():  # noqa: ASYNC110  (nothing tells)
            await asyncio.sleep(_TURN)


def failing(status: int, **headers: str) -> Answer:
    """Return an answer that is the engine's own error."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "mine"}}, status=status, headers=headers)

    return answer


def models_listed(*ids: str, then: Answer = hello) -> Answer:
    """Return an answer of an upstream that lists its models, and answers everything else as it is told."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and request.path.endswith("/models"):
            return web.json_response({"object": "list", "data": [{"id": each, "object": "model"} for each in ids]})
        return await then(request)

    return answer


@asynccontextmanager
async def raw_server(*parts: bytes, port: int = 0, stays: bool = False) -> AsyncIterator[int]:
    """Run a server that reads a request's head, writes some bytes, and ends the connection; return its port."""
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            if stays:
                await gone.wait()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            gone.set()


async def raw(path: Path, request: bytes) -> bytes:
    """Send bytes to hal0's unix socket and return all that comes, up to the connection's end."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(request)
        async with asyncio.timeout(_PATIENCE):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def error_of(body: Any) -> tuple[str, str]:
    """Return an envelope's type and code; it has all of OpenAI's fields."""
    assert set(body["error"]) >= {"message", "type", "param", "code"}
    return body["error"]["type"], body["error"]["code"]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with taken_port() as port:
        return port


@contextmanager
def taken_port() -> Iterator[int]:
    """Return a port on which connections are never answered."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        yield port


async def families(client: ClientSession) -> list[Metric]:
    """Return what /metrics answers."""
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return list(text_string_to_metric_families(await answer.text()))


async def scraped(client: ClientSession) -> dict[str, dict[tuple[str, ...], float]]:
    """Return each metric's samples by their labels' values, in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in await families(client):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found
