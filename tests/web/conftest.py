from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import scenes
from aiohttp import ClientResponse, ClientSession, UnixConnector, web
from aiohttp.test_utils import TestServer
from scenes import MODEL, Scene, slot

from hal0.core.state import SlotState
from hal0.web.app import serving

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def hello(_: web.Request) -> web.StreamResponse:
    return web.json_response({"said": "hello"})


@dataclass
class Engine:
    """A tiny real HTTP server in the place of an engine. It notes what it is asked, and answers as it is told."""

    answer: Answer = hello
    port: int = 0
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        self.begun.set()
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@dataclass
class Bench:
    """hal0's real application over a scene, an engine, and a client of hal0."""

    scene: Scene
    engine: Engine
    client: ClientSession
    socket: Path

    async def ask(self, body: dict[str, object] | None = None, **more: object) -> ClientResponse:
        """Ask for a chat completion of the slot."""
        text = {"model": "chat", "messages": []} | (body or {})
        return await self.client.post("/v1/chat/completions", json=text, **more)  # type: ignore[arg-type]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", made.handle)
    async with TestServer(app) as server:
        assert server.port
        made.port = server.port
        yield made


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scenes.scene(tmp_path) as made:
        yield made


@pytest.fixture
async def bench(scene: Scene, engine: Engine) -> AsyncIterator[Bench]:
    """One slot that is ready, with a real engine behind it."""
    scene.declare(MODEL, slot("chat", port=engine.port, aliases="[gpt-4o]", context_size=4096))
    await scene.until(lambda: scene.states() == {"chat": SlotState.READY})
    async with served(scene) as (client, socket):
        yield Bench(scene, engine, client, socket)


@asynccontextmanager
async def served(scene: Scene) -> AsyncIterator[tuple[ClientSession, Path]]:
    """Serve a scene as the daemon does, and return a client on its unix socket."""
    path = scene.folder / "run" / "hal0.sock"
    async with (
        serving(scene.reconciler, listen=f"127.0.0.1:{free_port()}", socket=path),
        ClientSession("http://hal0", connector=UnixConnector(str(path))) as client,
    ):
        yield client, path


@asynccontextmanager
async def served_on_tcp(scene: Scene) -> AsyncIterator[str]:
    """Serve a scene as the daemon does, and return its address for clients."""
    address = f"127.0.0.1:{free_port()}"
    async with serving(scene.reconciler, listen=address, socket=scene.folder / "hal0.sock"):
        yield f"http://{address}"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
