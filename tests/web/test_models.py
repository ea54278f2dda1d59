from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession
from plane import served, served_on_tcp
from scenes import MODEL, Scene, slot

from hal0.errors import StepFailed

BIG = {
    "big.yaml": "kind: Model\nname: org/big\nsource: {url: 'https://x.example/big.gguf?key=s3cret'}\nfetch: manual\n"
}


async def streamed(client: ClientSession, verb: str, model: str) -> list[dict[str, Any]]:
    async with client.post(f"/api/models/{verb}", json={"model": model}) as answer:
        assert answer.status == 200
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_models_are_listed_and_shown(scene: Scene) -> None:
    async with served(scene, MODEL, BIG, slot("chat")) as (client, _):
        async with client.get("/api/models") as answer:
            text = await answer.text()
        found = json.loads(text)
        async with client.get("/api/models/org/big") as answer:
            shown = await answer.json()
        async with client.get("/api/models/org/bgi") as answer:
            assert answer.status == 404
            assert "did you mean 'org/big'" in (await answer.json())["error"]["message"]
    assert (found["version"], [each["name"] for each in found["models"]]) == (1, ["m", "org/big"])
    assert found["models"][1] | shown == shown
    assert shown["source"] == {"url": "https://x.example/big.gguf"}
    assert "s3cret" not in text


async def test_a_pull_and_a_verification_are_streamed(scene: Scene) -> None:
    async with served(scene, MODEL, BIG) as (client, _):
        pulled = await streamed(client, "pull", "org/big")
        verified = await streamed(client, "verify", "org/big")
    assert [event["event"] for event in pulled] == ["begin", "transfer", "end"]
    assert pulled[1]["message"] == "fetching org/big: 100 of 100 B"
    assert verified[-1]["files"][0]["path"].endswith("/big.gguf")
    assert "s3cret" not in json.dumps([pulled, verified])


async def test_whether_a_model_fits_is_told_where_it_is_asked_for(scene: Scene) -> None:
    async with served(scene, MODEL, BIG) as (client, _):
        async with client.get("/api/models/m?fit&ctx_size=512&device=cpu") as answer:
            found = (await answer.json())["fit"]
        async with client.get("/api/models/m") as answer:
            assert "fit" not in await answer.json()
        for query, why in (("ctx_size=-1", "is no whole number"), ("device=x", "is not one of"), ("profile=x", "no P")):
            async with client.get(f"/api/models/org/big?fit&{query}") as answer:
                assert answer.status == 400
                assert why in (await answer.json())["error"]["message"]
    assert (found["model"], found["device"], found["context_size"]) == ("m", "cpu", 512)


async def test_a_pull_by_where_it_comes_from_says_what_it_asks_and_what_went_wrong(scene: Scene) -> None:
    scene.fetcher.said = StepFailed("org/repo at main has no file x.gguf", hint="There are: y.gguf")
    async with served(scene, MODEL) as (client, _):
        asked, error = await streamed(client, "pull", "org/repo/x.gguf")
    assert asked == {"event": "asked", "source": {"repo": "org/repo", "file": "x.gguf", "revision": "main"}}
    assert (error["event"], error["exit_code"], error["hint"]) == ("error", 3, "There are: y.gguf")


async def test_what_was_found_is_declared_through_the_socket_only(scene: Scene) -> None:
    async with served(scene, MODEL) as (client, _), client.post("/api/models/scan", json={"who": "eve"}) as answer:
        assert (answer.status, (await answer.json())["manifests"]) == (200, [])
    async with (
        served_on_tcp(scene) as address,
        ClientSession(address) as client,
        client.post("/api/models/scan") as answer,
    ):
        assert answer.status == 403


async def test_a_model_is_removed(scene: Scene) -> None:
    async with served(scene, MODEL) as (client, _), client.delete("/api/models/m") as answer:
        assert (answer.status, (await answer.json())["model"]) == (200, "m")
    assert not (scene.folder / "models" / "m.gguf").exists()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/models/pull", {"model": "m"}, 400),
        ("POST", "/api/models/pull", {"model": "x"}, 404),
        ("POST", "/api/models/pull", {}, 400),
        ("POST", "/api/models/verify", {"model": "x"}, 404),
        ("DELETE", "/api/models/m", None, 409),
        ("DELETE", "/api/models/x", None, 404),
    ],
)
async def test_a_refusal_has_a_status(scene: Scene, method: str, path: str, body: object, status: int) -> None:
    async with served(scene, MODEL, slot("chat")) as (client, _), client.request(method, path, json=body) as answer:
        assert answer.status == status


async def test_files_are_touched_through_the_socket_only(scene: Scene) -> None:
    scene.declare(MODEL)
    await scene.settle()
    async with served_on_tcp(scene) as address, ClientSession(address) as client:
        async with client.get("/api/models") as answer:
            assert answer.status == 200
        for verb in ("pull", "verify"):
            async with client.post(f"/api/models/{verb}", json={"model": "m"}) as answer:
                assert answer.status == 403
        async with client.delete("/api/models/m") as answer:
            assert answer.status == 403
    assert (scene.folder / "models" / "m.gguf").exists()
