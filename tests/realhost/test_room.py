"""Two real models on a real host that share a pool of memory with room for one of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .host import Host, host_manifest, slot_manifest

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
BASE_URL = "http://127.0.0.1:8080/v1"
SUM = "pool ram has 300.0 MiB, of which"


@pytest.fixture(scope="module")
def host(box: Box, engine: Engine) -> Host:
    host = Host(box, "/etc/hal0/manifests")
    pool = "\npools: {ram: 300Mi}\n---\nkind: Model"
    host.manifest("host.yaml", host_manifest(engine.model.parent, engine.image).replace("\n---\nkind: Model", pool))
    for name in ("one", "two"):
        host.manifest(f"{name}.toml", slot_manifest(name, run="on-demand"))
    host.hal0("install")
    host.until("declared", lambda: len(host.status()["slots"]) == 2)
    return host


def last_act(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.hal0("why", name, "--json").stdout)["acts"][0]
    return found


def test_each_of_two_models_makes_room_for_the_other_that_is_asked_for(host: Host) -> None:
    for name, other in (("one", "two"), ("two", "one"), ("one", "two")):
        answer = host.ask(BASE_URL, name)
        assert answer["whole"]
        assert answer["streamed"] == answer["whole"]
        assert host.container(name)
        assert host.container(other) == ""
    act = last_act(host, "two")
    assert (act["action"], act["rule"]) == ("update", "room")
    assert "makes room for one: memory" in act["why"]
    assert act["request"] == last_act(host, "one")["request"] != ""
    told = host.hal0("why", "two").stdout
    assert "for request " + act["request"] in told
    claim = host.slot("one")["claim"]
    assert claim["source"] in {"estimated", "measured"}
    assert 93 * 2**20 < claim["bytes"] <= 300 * 2**20


def test_slots_that_should_always_be_up_and_do_not_fit_are_refused_with_the_sum(host: Host) -> None:
    for name in ("one", "two"):
        host.manifest(f"{name}.toml", slot_manifest(name, claim="200Mi", run="always"))
    refused = host.hal0("apply", check=False)
    assert refused.returncode == 1
    assert SUM in refused.stderr
    assert "100.0 MiB too much" in refused.stderr
    assert "one 200.0 MiB (stated)" in refused.stderr
    assert SUM in host.hal0("plan", check=False).stdout
    host.manifest("two.toml", slot_manifest("two", claim="90Mi", run="always"))
    host.hal0("apply")
    host.until_ready("one", "two")
