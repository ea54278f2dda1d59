"""/v1 on a real host while engines are replaced, killed and stopped under its requests."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from .host import Host, host_manifest, slot_manifest
from .load import Load, code, lost

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
ROOT = "/etc/hal0/manifests"
BASE_URL = "http://127.0.0.1:8080/v1"
TWIN = "kind: Model\nname: twin\npath: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext_size: 384\n"


@pytest.fixture(scope="module")
def installed(box: Box, engine: Engine) -> Host:
    host = Host(box, ROOT)
    # An engine that has requests does not end when it is told to: two seconds of that are enough.
    host.manifest("host.yaml", host_manifest(engine.model.parent, engine.image).replace("timeout: 5s", "timeout: 2s"))
    host.manifest("chat.toml", chat())
    host.hal0("install")
    return host


@pytest.fixture
def host(installed: Host) -> Host:
    """A slot that is ready as declared, under a daemon that runs."""
    installed.manifest("chat.toml", chat())
    installed.hal0("apply")
    installed.until_ready("chat")
    return installed


def chat(**settings: object) -> str:
    """Return the slot that is asked. One thread: the clients and hal0 need the machine's other CPU."""
    return slot_manifest("chat", **{"args": ["--threads", "1"], **settings})


def run_of(host: Host) -> str:
    """Return which run of the slot's service this is; empty where it does not run. Costs less than podman does."""
    return host.systemctl("show", "--property=InvocationID", "--value", "hal0-slot@chat.service")


def test_a_slot_is_swapped_under_load_without_a_lost_request(host: Host) -> None:
    containers = [host.container("chat")]
    with Load(host) as load:
        host.manifest("chat.toml", chat(args=["--threads", "1", "--temp", "0.3"]))
        host.hal0("apply")
        load.go_on()
        containers.append(host.container("chat"))
        before = run_of(host)
        host.manifest("chat.toml", chat(context_size=256))
        host.until("another run", lambda: run_of(host) not in {"", before})
        load.go_on()
        containers.append(host.container("chat"))
    assert lost(load.answers) == []
    assert "" not in containers
    assert len(set(containers)) == 3
    command = host.slot("chat")["instance"]["command"]
    assert command[command.index("--ctx-size") + 1] == "256"


@pytest.mark.parametrize("way", ["auto", "in-place"])
def test_another_model_is_swapped_in_under_load_without_a_lost_request(host: Host, way: str) -> None:
    host.manifest("twin.yaml", TWIN)
    host.manifest("chat.toml", chat(replace=way).replace("context_size = 512\n", ""))
    host.hal0("apply")
    host.until_ready("chat")
    with Load(host) as load:
        done = host.hal0("slot", "swap", "chat", "--model", "twin", "--json", timeout=300)
        load.go_on()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert lost(load.answers) == []
    assert events[-2]["swapped"]
    assert ("chat.next" in {event["slot"] for event in events if event["event"] == "step"}) == (way == "auto")
    assert 'model = "twin"' in host.shell.run("cat", f"{ROOT}/chat.toml").stdout
    command = host.slot("chat")["instance"]["command"]
    assert command[command.index("--ctx-size") + 1] == "384"
    assert host.container("chat.next") == ""
    assert host.systemctl("list-units", "--all", "--plain", "--no-legend", "hal0-slot@chat.next.service") == ""
    assert host.shell.run("test", "-e", host.dropin("chat.next"), check=False).returncode == 1


@pytest.mark.parametrize(
    "words",
    [("podman", "kill", "hal0-slot-chat"), ("systemctl", "stop", "hal0-slot@chat.service")],
    ids=["killed", "stopped"],
)
def test_requests_that_begin_after_an_engines_end_wait_for_the_next_one(host: Host, words: tuple[str, ...]) -> None:
    before = host.container("chat")
    with Load(host) as load:
        host.shell.run(*words)
        ended = time.monotonic()
        load.go_on()
    assert host.container("chat") not in {"", before}
    assert lost(load.since(ended)) == []
    under_way = lost(answer for answer in load.answers if answer["began"] <= ended)
    assert {code(answer) for answer in under_way} <= {"slot.unreachable", "stream.broken"}


def test_a_slot_on_demand_comes_with_a_request_and_goes_when_it_is_unused(host: Host) -> None:
    host.manifest("od.toml", slot_manifest("od", run="on-demand", idle_timeout="3s"))
    host.until("od declared", lambda: "od" in [slot["name"] for slot in host.status()["slots"]])
    assert host.container("od") == ""
    answer = host.ask(BASE_URL, "od")
    assert answer["whole"]
    assert answer["streamed"] == answer["whole"]
    host.until("od unloaded", lambda: host.slot("od")["state"] == "offline" and not host.container("od"))
    states = [move["after"] for move in reversed(host.slot("od")["transitions"])]
    assert states[:3] == ["starting", "warming", "ready"]
    assert states[-2:] == ["unloading", "offline"]
    host.remove_manifest("od.toml")
