"""An upstream tried by hand: reached or not, its key taken or not, and the key told to nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from plane import Answer, engine_on, free_port, hello, served, served_on_tcp, upstream, url_of
from scenes import Scene

KEY = "sk-very-secret-0123456789"


def lists(*models: str, wants: str = "", status: int = 200) -> Answer:
    """Return what answers with a list of models, to those with a key where it wants one."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if wants and request.headers.get("authorization") != f"Bearer {wants}":
            return web.json_response({"error": f"your key is {request.headers.get('authorization')}"}, status=401)
        return web.json_response({"data": [{"id": each} for each in models]}, status=status)

    return answer


async def tried(scene: Scene, answer: Answer, tmp_path: Path, *, key: str | None = KEY, **settings: object) -> Any:
    """Try an upstream that answers so, whose manifest names a file with a key; None names none."""
    place = tmp_path / "key"
    if key is not None:
        place.write_text(key)
        settings["api_key"] = f"{{file: {place}}}"
    async with (
        engine_on(answer=answer) as engine,
        served(scene, upstream("far", url_of(engine.port), **settings)) as (client, _),
        client.post("/api/upstreams/far/test") as said,
    ):
        text = await said.text()
        assert said.status == 200, text
        assert KEY not in text
        return json.loads(text)


@pytest.mark.parametrize(
    ("wants", "key", "verdict", "ok"),
    [
        (KEY, KEY, "accepted", True),
        ("another", KEY, "refused", False),
        ("another", None, "wanted", False),
        ("", KEY, "unproved", True),
        ("", None, "none", True),
    ],
)
async def test_what_becomes_of_a_key_is_told(
    scene: Scene, tmp_path: Path, wants: str, key: str | None, verdict: str, *, ok: bool
) -> None:
    found = await tried(scene, lists("big", wants=wants), tmp_path, key=key)
    assert (found["key"], found["ok"]) == (verdict, ok)
    assert found["status"] == (200 if ok else 401)
    assert found["models"] == (["big"] if ok else [])
    assert found["seconds"] >= 0


async def test_a_key_that_is_not_there_is_told_by_its_place_and_nobody_is_asked(scene: Scene, tmp_path: Path) -> None:
    found = await tried(scene, lists("big"), tmp_path, key=None, api_key=f"{{file: {tmp_path}/none}}")
    assert (found["key"], found["ok"], found["status"], found["seconds"]) == ("missing", False, None, None)
    assert f"no secret in file {tmp_path}/none: No such file" in found["error"]
    assert found["key_place"] == f"file {tmp_path}/none"


async def test_models_that_the_manifest_names_and_the_list_lacks_are_named(scene: Scene, tmp_path: Path) -> None:
    found = await tried(scene, lists("big", "small"), tmp_path, models="[big, huge]")
    assert (found["ok"], found["models"], found["not_listed"]) == (True, ["big", "small"], ["huge"])


async def test_an_upstream_without_a_list_can_be_used_by_the_models_of_its_manifest(
    scene: Scene, tmp_path: Path
) -> None:
    found = await tried(scene, lists(status=404), tmp_path, models="[big]")
    assert (found["ok"], found["status"], found["key"]) == (True, 404, "unknown")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(lists(status=500), "it answered 500"), (hello, "upstream far: its list of models is not one")],
)
async def test_an_answer_that_is_no_list_can_not_be_used(
    scene: Scene, tmp_path: Path, answer: Answer, error: str
) -> None:
    found = await tried(scene, answer, tmp_path)
    assert (found["ok"], found["error"]) == (False, error)


async def test_an_upstream_that_is_away_is_told_and_its_breaker_is_left_as_it_is(scene: Scene) -> None:
    port = free_port()
    async with served(scene, upstream("far", url_of(port), failures=1)) as (client, _):
        async with client.post("/api/upstreams/far/test") as said:
            found = await said.json()
        async with client.get("/api/upstreams") as listed:
            (row,) = (await listed.json())["upstreams"]
    assert (found["ok"], found["status"], found["key"]) == (False, None, "none")
    assert found["error"] == "connection refused"
    assert row["breaker"] == "closed"


async def test_an_upstream_that_is_not_there_is_named_with_the_closest(scene: Scene) -> None:
    async with (
        served(scene, upstream("cloud", "http://127.0.0.1:1/v1")) as (client, _),
        client.post("/api/upstreams/clodu/test") as said,
    ):
        error = (await said.json())["error"]
    assert said.status == 404
    assert "cloud" in error["message"] + error.get("hint", "")


async def test_clients_on_tcp_may_try_nothing(scene: Scene) -> None:
    async with (
        served_on_tcp(scene) as address,
        ClientSession(address) as client,
        client.post("/api/upstreams/far/test") as said,
    ):
        assert said.status == 403
