"""What goes wrong by itself, or behind hal0's back, and what the daemon makes of it on a real host.

A slot that can't start is declared first and judged near the end: a crash loop takes minutes to be called one.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from . import images
from .host import Host, condition, host_manifest, slot_manifest

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
ROOT = "/etc/hal0/manifests"
API = "hal0-api.service"
STORE = "/var/lib/hal0/hal0.db"
BROKEN = "localhost/hal0/broken:test"
# Five starts wait 10, 20, 40 and 80 s between them, each with up to a fifth more, and each is five of systemd's.
CRASH_LOOP_S = 300.0


@pytest.fixture(scope="module")
def host(box: Box, engine: Engine) -> Host:
    """A slot that is ready and one that can't start, under a daemon that runs."""
    images.crash(box, BROKEN)
    found = Host(box, ROOT)
    found.manifest("host.yaml", host_manifest(engine.model.parent, engine.image))
    found.manifest("chat.toml", slot_manifest("chat"))
    profile = f"kind: Profile\nname: broken\nimage: {BROKEN}\nentrypoint: llama-server\nstop_timeout: 5s\n"
    found.manifest("broken.yaml", f"{profile}---\nkind: Slot\nname: broken\nmodel: smollm2\nprofile: broken\n")
    found.hal0("install")
    found.until_ready("chat")
    return found


def test_a_start_that_systemd_gave_up_on_is_tried_again_later(host: Host) -> None:
    broken = host.until("systemd's last word", lambda: _failed(host))
    assert "exit status 3" in condition(broken, "Running")["message"]
    assert "crash image: refusing to serve" in condition(broken, "Ready")["message"]
    assert (broken["state"], condition(broken, "Stalled")["reason"]) == ("error", "Progressing")
    assert host.hal0("slot", "logs", "broken").stdout.count("crash image: refusing to serve") >= 5


def _failed(host: Host) -> dict[str, Any] | None:
    slot = host.slot("broken")
    return slot if condition(slot, "Running")["reason"] == "Failed" else None


def test_an_override_ends_when_its_time_is_over(host: Host) -> None:
    host.manifest("hand.toml", slot_manifest("hand", run="never"))
    host.hal0("apply", "--limit", "hand")
    host.hal0("slot", "load", "hand", "--for", "20s", "--no-wait")
    host.until("its end told", lambda: "lapse" in [act["action"] for act in host.slot("hand")["acts"]])
    host.until("hand down", lambda: host.slot("hand")["state"] == "offline")
    acts = [act["action"] for act in host.slot("hand")["acts"]]
    assert acts == ["update", "lapse", "restart", "load", "create"]
    assert host.container("hand") == ""
    assert host.slot("hand")["overrides"] == []
    host.remove_manifest("hand.toml")


def test_drift_is_told_from_the_file_over_the_loaded_unit_to_the_container(host: Host) -> None:
    """``alert`` leaves each as it is, so that all three can be looked at, one after the other."""
    host.manifest("chat.toml", slot_manifest("chat", drift="alert"))
    host.hal0("apply", "--limit", "chat")
    path = host.dropin("chat")
    declared = host.shell.read(path)
    more = "--env=EXTRA=1", "--group-add=audio", "--device=/dev/fuse", "--volume=/srv:/extra:ro"
    edited = declared.replace("--read-only \\\n", "".join(f"{option} \\\n  " for option in more))
    edited = edited.replace("--ctx-size 512", "--ctx-size 256")
    host.shell.write(path, edited)
    host.until("the file's drift", lambda: _drift(host) == {"definition"})
    host.systemctl("daemon-reload")
    host.shell.write(path, declared)
    host.until("the loaded unit's drift", lambda: "unit" in _drift(host))
    host.shell.write(path, edited)
    host.systemctl("daemon-reload")
    host.systemctl("restart", "hal0-slot@chat.service")
    host.until("the edited container", lambda: "EXTRA=1" in _environment(host))  # systemd may have to try twice
    host.shell.write(path, declared)
    host.systemctl("daemon-reload")
    host.until(
        "the container's drift",
        lambda: _drift(host) == {"env", "groups", "devices", "mounts", "options", "args"},
    )
    assert "args: --ctx-size 256 -> --ctx-size 512" in host.slot("chat")["drift"]
    host.manifest("chat.toml", slot_manifest("chat"))
    host.healed("chat", after="args: --ctx-size 256 -> --ctx-size 512")
    assert host.shell.read(path).partition("[X-Hal0]")[0] == declared.partition("[X-Hal0]")[0]


def _environment(host: Host) -> str:
    found = host.shell.run("podman", "inspect", "--format", "{{.Config.Env}}", "hal0-slot-chat", check=False)
    return found.stdout


def _drift(host: Host) -> set[str]:
    """Return what of the slot is not as declared, without the word that its policy leaves it so."""
    return {reason.partition(":")[0] for reason in host.slot("chat")["drift"]} - {"drift policy"}


def test_an_engine_that_hangs_in_its_container_is_proved_to_and_started_again(host: Host) -> None:
    before = host.container("chat")
    pid = host.podman("inspect", "--format", "{{.State.Pid}}", "hal0-slot-chat")
    host.shell.run("sh", "-c", f"kill -STOP {pid}")
    began = time.monotonic()
    host.until("another container", lambda: host.container("chat") not in {"", before}, within=150)
    assert time.monotonic() - began > 10
    act = host.healed("chat", after="engine: does not answer -> running")
    assert act["action"] == "restart"
    assert host.ask("http://127.0.0.1:8080/v1", "chat")["whole"]


def test_a_crash_loop_is_called_one_and_a_retry_goes_on_at_once(host: Host, engine: Engine) -> None:
    stalled = host.until("the crash loop", lambda: _stalled(host), within=CRASH_LOOP_S)
    assert stalled["reason"] == "CrashLoop"
    count = re.search(r"(\d+) starts: ", stalled["message"])
    assert count
    assert int(count[1]) >= 5  # more, where the tests before took long
    assert "last lines: crash image: refusing to serve" in stalled["message"]
    host.podman("tag", engine.image, BROKEN)
    assert host.hal0("slot", "retry", "broken").returncode == 0
    host.until_ready("broken")
    host.remove_manifest("broken.yaml")


def _stalled(host: Host) -> dict[str, Any] | None:
    """Return what is said of a crash loop between two tries: while one is made, nobody has last words."""
    found = condition(host.slot("broken"), "Stalled")
    return found if found["status"] and "last lines: " in found["message"] else None


def test_a_store_that_is_damaged_while_slots_run_costs_none_of_them_its_container(host: Host) -> None:
    host.until("only one slot", lambda: [slot["name"] for slot in host.status()["slots"]] == ["chat"])
    host.until_ready("chat")
    before = host.container("chat")
    host.systemctl("kill", "--signal=KILL", API)
    host.systemctl("stop", API)
    for file in (STORE, f"{STORE}-wal"):  # its journal too: that alone would mend it
        host.shell.write(file, "rotten" * 1000)
    host.systemctl("start", API)
    host.until_ready("chat")
    assert host.container("chat") == before
    assert "the store was damaged" in host.shell.run("journalctl", "--unit", API, "--output=cat").stdout
    assert host.hal0("plan", "--detailed-exitcode").returncode == 0
