"""Keys of clients: asked for on TCP where the Host manifest names some, and never on the unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest
from aiohttp import ClientSession, UnixConnector
from openai import AsyncOpenAI
from plane import CHAT, Engine, error_of, host, served_on_tcp
from scenes import MODEL, Scene, slot

from hal0.core.endpoints import ENDPOINTS

KEYS = "# of the kitchen\nsk-kitchen\n\n  sk-cellar  \n"
ASK = {"model": "chat", "messages": []}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(KEYS)
    return path


@asynccontextmanager
async def guarded(scene: Scene, engine: Engine, keys: Path) -> AsyncIterator[ClientSession]:
    """Serve a slot to those who have a key, and return a client over TCP."""
    scene.declare(MODEL, host(api_keys=f"{{file: {keys}}}"), slot("chat", port=engine.port))
    await scene.settle()
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        yield client


async def status_of(client: ClientSession, path: str = CHAT, **headers: str) -> int:
    async with client.post(path, json=ASK, headers=headers) as answer:
        await answer.read()
        return answer.status


GOOD = [
    {"Authorization": "Bearer sk-kitchen"},
    {"authorization": "bearer   sk-cellar "},
    {"x-api-key": "sk-kitchen"},
    {"Authorization": "Basic abc", "x-api-key": "sk-cellar"},
]
BAD = [
    {},
    {"Authorization": "Bearer sk-kitche"},
    {"Authorization": "Bearer sk-kitchenn"},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "sk-kitchen"},
    {"Authorization": "Basic sk-kitchen"},
    {"Authorization": "Bearer # of the kitchen"},
    {"x-api-key": ""},
    {"x-api-key": "sk-Kitchen"},
    {"x-api-key": "sk-kitchen,sk-cellar"},
    {"Authorization": "Bearer é"},
    {"Cookie": "key=sk-kitchen"},
]


@pytest.mark.parametrize("headers", GOOD)
async def test_who_has_a_key_is_let_in(scene: Scene, engine: Engine, keys: Path, headers: dict[str, str]) -> None:
    async with guarded(scene, engine, keys) as client:
        for _ in range(2):
            assert await status_of(client, **headers) == 200
    assert "sk-" not in repr(engine.asked[0].headers)


@pytest.mark.parametrize("headers", BAD)
async def test_who_has_none_is_told_so_and_nothing_is_done(
    scene: Scene, engine: Engine, keys: Path, headers: dict[str, str]
) -> None:
    async with guarded(scene, engine, keys) as client:
        before = scene.reconciler.demands.all
        scene.clock.forward(1)
        for _ in range(2):
            async with client.post(CHAT, json=ASK, headers=headers) as answer:
                assert (answer.status, answer.headers["x-should-retry"]) == (401, "false")
                assert answer.headers.getall("WWW-Authenticate") == ['Bearer realm="hal0"']
                told = await answer.json()
    assert error_of(told) == ("authentication_error", "auth.invalid_key")
    assert "sk-kitchen" not in told["error"]["message"]
    assert engine.asked == []
    assert scene.reconciler.demands.all == before


async def test_a_connection_that_was_let_in_is_asked_again_with_each_request(
    scene: Scene, engine: Engine, keys: Path
) -> None:
    async with guarded(scene, engine, keys) as client:
        for headers, status in ((GOOD[0], 200), (BAD[0], 401), (GOOD[0], 200), (BAD[1], 401)):
            assert await status_of(client, **headers) == status
    assert len(engine.asked) == 2


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
async def test_every_path_of_v1_asks_for_a_key(scene: Scene, engine: Engine, keys: Path, path: str) -> None:
    async with guarded(scene, engine, keys) as client:
        for odd in (path, path.replace("/v1", "/%761"), f"{path}?x=/v1/models"):
            assert await status_of(client, odd) == 401


async def test_an_error_on_anthropics_paths_is_in_its_envelope(scene: Scene, engine: Engine, keys: Path) -> None:
    async with guarded(scene, engine, keys) as client, client.post("/v1/messages", json=ASK) as answer:
        told = await answer.json()
    assert (answer.status, told["type"], told["error"]["type"]) == (401, "error", "authentication_error")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/chat", "/api/status", "/api/health", "/metrics"])
async def test_what_only_shows_needs_no_key(scene: Scene, engine: Engine, keys: Path, path: str) -> None:
    async with guarded(scene, engine, keys) as client, client.get(path) as answer:
        assert answer.status == 200
        assert "sk-" not in await answer.text()


async def test_the_unix_socket_needs_no_key(scene: Scene, engine: Engine, keys: Path) -> None:
    async with guarded(scene, engine, keys):
        connector = UnixConnector(str(scene.folder / "hal0.sock"))
        async with ClientSession("http://hal0", connector=connector) as local:
            assert await status_of(local) == 200


async def test_keys_that_were_changed_are_in_force_at_once(scene: Scene, engine: Engine, keys: Path) -> None:
    async with guarded(scene, engine, keys) as client:
        assert await status_of(client, **GOOD[0]) == 200
        keys.write_text("sk-attic\n")
        assert await status_of(client, **GOOD[0]) == 401
        assert await status_of(client, Authorization="Bearer sk-attic") == 200


@pytest.mark.parametrize("text", [None, "", "# nobody\n", "sk-kitchen\nnot\x00plain\n"])
async def test_nobody_is_let_in_while_the_keys_cant_be_read(
    scene: Scene, engine: Engine, keys: Path, text: str | None
) -> None:
    if text is None:
        keys.unlink()
    else:
        keys.write_text(text)
    async with guarded(scene, engine, keys) as client:
        for headers in (GOOD[0], BAD[0]):
            async with client.post(CHAT, json=ASK, headers=headers) as answer:
                assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
                assert not {"Retry-After", "WWW-Authenticate"} & set(answer.headers)
                assert error_of(await answer.json())[1] == "auth.no_keys"
    assert engine.asked == []


async def test_the_next_request_is_let_in_once_the_keys_can_be_read_again(
    scene: Scene, engine: Engine, keys: Path
) -> None:
    keys.unlink()
    async with guarded(scene, engine, keys) as client:
        assert await status_of(client, **GOOD[0]) == 503
        keys.write_text(KEYS)
        assert await status_of(client, **GOOD[0]) == 200


async def test_a_large_body_without_a_key_is_refused_before_it_is_read(
    scene: Scene, engine: Engine, keys: Path
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    async with guarded(scene, engine, keys) as client, client.post(CHAT, data=endless()) as answer:
        assert answer.status == 401


async def test_the_official_client_sends_its_key(scene: Scene, engine: Engine, keys: Path) -> None:
    async with guarded(scene, engine, keys) as client:
        url = f"{client._base_url}/v1"
        async with AsyncOpenAI(api_key="sk-cellar", base_url=url, max_retries=0) as known:
            assert await known.post("/chat/completions", body=ASK, cast_to=object) == {"said": "hello"}
        async with AsyncOpenAI(api_key="wrong", base_url=url, max_retries=5) as unknown:
            with pytest.raises(openai.AuthenticationError):
                await unknown.post("/chat/completions", body=ASK, cast_to=object)
    assert len(engine.asked) == 1


async def test_the_official_client_does_not_try_again_while_the_keys_cant_be_read(
    scene: Scene, engine: Engine, keys: Path
) -> None:
    keys.unlink()
    async with guarded(scene, engine, keys) as client:
        url = f"{client._base_url}/v1"
        async with AsyncOpenAI(api_key="sk-cellar", base_url=url, max_retries=5) as asks:
            with pytest.raises(openai.InternalServerError) as caught:
                await asks.post("/chat/completions", body=ASK, cast_to=object)
    assert caught.value.code == "auth.no_keys"
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"
