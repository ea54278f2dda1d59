"""The daemon on a real host: what is done behind its back is noticed, named and healed."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from . import images
from .host import Host, condition, host_manifest, is_settled, slot_manifest

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
ROOT = "/etc/hal0/manifests"
API = "hal0-api.service"


@pytest.fixture(scope="module")
def installed(box: Box, engine: Engine) -> Host:
    host = Host(box, ROOT)
    host.manifest("host.yaml", host_manifest(engine.model.parent, engine.image))
    host.manifest("chat.toml", slot_manifest("chat"))
    host.hal0("install")
    return host


@pytest.fixture
def host(installed: Host, engine: Engine) -> Host:
    """Two ready slots as declared, under a daemon that runs."""
    installed.manifest("host.yaml", host_manifest(engine.model.parent, engine.image))
    installed.manifest("chat.toml", slot_manifest("chat"))
    installed.manifest("embed.toml", slot_manifest("embed", type="embedding"))
    installed.hal0("apply")  # what is ready now may be what an earlier test declared
    installed.until_ready("chat", "embed")
    return installed


def test_the_daemon_says_ready_and_serves_real_answers(host: Host) -> None:
    assert host.systemctl("is-active", API) == "active"
    answer = host.ask("http://127.0.0.1:8080/v1", "chat")
    assert answer["whole"]
    assert answer["streamed"] == answer["whole"]


def test_apply_through_the_daemon_changes_nothing_on_a_host_as_declared(host: Host) -> None:
    before = host.container("chat")
    applied = host.hal0("apply", "--detailed-exitcode")
    assert "changed=0" in applied.stdout
    assert host.container("chat") == before


def test_a_killed_container_is_started_again(host: Host) -> None:
    before = host.container("chat")
    host.podman("kill", "hal0-slot-chat")
    host.until("another container", lambda: host.container("chat") not in {"", before})
    host.until_ready("chat")


def test_a_deleted_container_is_started_again(host: Host) -> None:
    before = host.container("chat")
    host.podman("rm", "--force", "--time", "0", "hal0-slot-chat")
    host.until("another container", lambda: host.container("chat") not in {"", before})
    host.until_ready("chat")


def test_a_limit_that_podman_was_told_to_change_is_named_and_undone(host: Host, box: Box) -> None:
    before = host.container("chat")
    cgroup = host.podman("inspect", "--format", "{{.State.CgroupPath}}", "hal0-slot-chat")
    assert host.shell.read(f"/sys/fs/cgroup{cgroup}/cgroup.procs").split()
    if "cpu" not in box.controllers:
        pytest.skip("this machine hands no cpu controller down")
    host.podman("update", "--cpus", "1.5", "hal0-slot-chat")
    host.healed("chat", after="cpus: 1.5 -> none")
    assert host.container("chat") not in {"", before}


def test_a_stopped_unit_is_named_and_started_again(host: Host) -> None:
    host.systemctl("stop", "hal0-slot@chat.service")
    act = host.healed("chat", after="service: stopped -> running")
    assert act["action"] == "restart"


def test_a_hand_edited_dropin_is_named_and_written_back(host: Host) -> None:
    path = host.dropin("chat")
    declared = host.shell.read(path)
    host.shell.write(path, declared.replace("--read-only", "--privileged"))
    host.healed("chat", after="definition: edited outside hal0")
    assert host.shell.read(path).partition("[X-Hal0]")[0] == declared.partition("[X-Hal0]")[0]


def test_a_hand_edit_that_someone_restarted_into_is_undone_in_the_container(host: Host) -> None:
    path = host.dropin("chat")
    host.systemctl("stop", API)
    host.shell.write(path, host.shell.read(path).replace("--read-only ", ""))
    host.systemctl("daemon-reload")
    host.systemctl("restart", "hal0-slot@chat.service")
    assert not json.loads(host.podman("inspect", "hal0-slot-chat"))[0]["HostConfig"]["ReadonlyRootfs"]
    host.systemctl("start", API)
    host.healed("chat", after="definition: edited outside hal0")
    assert json.loads(host.podman("inspect", "hal0-slot-chat"))[0]["HostConfig"]["ReadonlyRootfs"]


def test_a_retagged_image_is_named_and_started(host: Host, engine: Engine, box: Box) -> None:
    before = images.image_id(box, engine.image)
    other = images.variant(box, "localhost/hal0/another:test", base=engine.image, label="another")
    host.podman("tag", other, engine.image)
    host.healed("chat", after="image: ")
    host.until_ready("chat", "embed")
    assert host.slot("chat")["instance"]["image"] == images.image_id(box, "localhost/hal0/another:test")
    host.podman("tag", before, engine.image)
    host.until("the first image again", lambda: (host.slot("chat")["instance"] or {}).get("image") == before)


def test_an_operators_dropin_is_left_alone_and_named(host: Host) -> None:
    path = host.dropin("chat").replace("50-hal0.conf", "60-mine.conf")
    host.shell.write(path, "[Service]\nEnvironment=MINE=1\n")
    host.systemctl("daemon-reload")
    seen = host.until("the drop-in named", lambda: host.slot("chat")["operator_dropins"])
    assert seen == [path]
    assert host.shell.read(path) == "[Service]\nEnvironment=MINE=1\n"
    host.shell.run("rm", path)
    host.systemctl("daemon-reload")
    host.until("no drop-in", lambda: not host.slot("chat")["operator_dropins"])


def test_drift_under_alert_stays_named_and_unhealed(host: Host) -> None:
    host.manifest("chat.toml", slot_manifest("chat", drift="alert"))
    host.until("the policy in force", lambda: host.status()["generation"] and _has_policy(host))
    host.systemctl("stop", "hal0-slot@chat.service")
    drift = host.until("drift named", lambda: host.slot("chat")["drift"])
    assert "service: stopped -> running (run: always)" in drift
    assert host.systemctl("show", "-P", "ActiveState", "hal0-slot@chat.service") == "inactive"
    host.manifest("chat.toml", slot_manifest("chat"))
    host.healed("chat", after="service: stopped -> running")


def _has_policy(host: Host) -> bool:
    plan = json.loads(host.hal0("plan", "--json").stdout)
    return not plan["changes"]


def test_an_edited_manifest_is_applied_without_being_asked(host: Host) -> None:
    before = host.container("chat")
    host.manifest("chat.toml", slot_manifest("chat", args=["--temp", "0.3"]))
    host.until("another container", lambda: host.container("chat") not in {"", before})
    host.until_ready("chat")
    assert "--temp" in host.slot("chat")["instance"]["command"]


def test_a_removed_manifest_is_pruned(host: Host) -> None:
    host.manifest("third.toml", slot_manifest("third"))
    host.until_ready("third")
    host.remove_manifest("third.toml")
    host.until("the slot gone", lambda: "third" not in [slot["name"] for slot in host.status()["slots"]])
    assert host.container("third") == ""
    assert host.shell.run("test", "-e", host.dropin("third"), check=False).returncode == 1


def test_an_empty_root_prunes_nothing(host: Host) -> None:
    before = {name: host.container(name) for name in ("chat", "embed")}
    # The Host goes first and comes last: whoever looks in between finds errors, and prunes nothing for those either.
    host.shell.run("sh", "-c", f"mkdir -p /root/away && mv {ROOT}/host.yaml /root/away/ && mv {ROOT}/* /root/away/")
    host.until("the refusal", lambda: "refused without --prune-all" in json.dumps(host.status()))
    assert {name: host.container(name) for name in before} == before
    host.shell.run("sh", "-c", f"mv /root/away/*.toml {ROOT}/ && mv /root/away/host.yaml {ROOT}/")
    host.until_ready("chat", "embed")
    assert {name: host.container(name) for name in before} == before


def test_a_broken_manifest_beside_good_ones_stops_no_slot(host: Host) -> None:
    before = {name: host.container(name) for name in ("chat", "embed")}
    host.manifest("chat.toml", 'kind = "Slot"\nname = "chat"\nmodel = "smollm2"\ncontext_sise = 1\n')
    host.manifest("embed.toml", slot_manifest("embed", type="embedding", aliases=["vectors"]))
    accepted = host.until("the error in status", lambda: _held(host, "chat", "Accepted", status=False))
    assert accepted["reason"] == "InvalidManifest"
    assert f"{ROOT}/chat.toml:4: context_sise: unknown key (did you mean 'context_size'?)" in accepted["message"]
    host.until("the good edit", lambda: host.slot("embed")["aliases"] == ["vectors"])
    assert {name: host.container(name) for name in before} == before
    assert host.ask("http://127.0.0.1:8080/v1", "chat")["whole"]


def _held(host: Host, slot: str, kind: str, *, status: bool | None) -> dict[str, Any] | None:
    """Return a slot's condition where it has a status."""
    found = condition(host.slot(slot), kind)
    return found if found["status"] is status else None


def test_restarting_the_daemon_restarts_no_slot(host: Host) -> None:
    before = {name: host.container(name) for name in ("chat", "embed")}
    host.systemctl("restart", API)
    host.until_ready("chat", "embed")
    assert {name: host.container(name) for name in before} == before


def test_a_lost_store_stops_no_slot_not_even_one_that_was_loaded_by_hand(host: Host) -> None:
    host.manifest("third.toml", slot_manifest("third", run="never"))
    host.until("the slot declared", lambda: "third" in [slot["name"] for slot in host.status()["slots"]])
    host.hal0("slot", "load", "third")
    before = {name: host.container(name) for name in ("chat", "embed", "third")}
    assert all(before.values())
    host.systemctl("stop", API)
    host.shell.run("sh", "-c", "rm /var/lib/hal0/hal0.db*")
    host.systemctl("start", API)
    host.until_ready("chat", "embed", "third")
    host.hal0("apply")
    assert {name: host.container(name) for name in before} == before
    assert [own["aspect"] for own in host.slot("third")["overrides"]] == ["hold"]
    assert host.ask("http://127.0.0.1:8080/v1", "third")["whole"]
    host.hal0("slot", "reset", "third")
    host.until("the slot down", lambda: not host.container("third"))
    assert (host.container("chat"), host.container("embed")) == (before["chat"], before["embed"])
    host.remove_manifest("third.toml")


def test_an_engine_sleeps_unused_is_not_woken_by_looks_and_answers_again(host: Host) -> None:
    host.manifest("third.toml", slot_manifest("third", sleep_after="1s"))
    host.until_ready("third")
    port = host.slot("third")["port"]
    host.until("an engine that sleeps", lambda: _sleeps(host, port))
    for _ in range(3):
        host.hal0("apply")
    assert _sleeps(host, port)
    assert host.slot("third")["state"] == "ready"
    assert host.ask("http://127.0.0.1:8080/v1", "third")["whole"]
    host.remove_manifest("third.toml")
    host.until("the slot gone", lambda: "third" not in [slot["name"] for slot in host.status()["slots"]])


def _sleeps(host: Host, port: int) -> bool:
    look = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/props').read().decode())"
    return bool(json.loads(host.shell.run(sys.executable, "-c", look).stdout)["is_sleeping"])


@pytest.mark.parametrize("moment", ["the file is written", "the unit stops", "a while later"])
def test_a_daemon_killed_in_the_middle_of_an_apply_ends_where_it_would_have(host: Host, moment: str) -> None:
    marker, before = f"0.{len(moment)}", _run(host)
    host.manifest("chat.toml", slot_manifest("chat", args=["--top-p", marker]))
    if moment == "the file is written":
        host.until("the file", lambda: marker in host.shell.read(host.dropin("chat")))
    elif moment == "the unit stops":
        host.until("a stop", lambda: _run(host) != before)  # or the next run: it may have gone by between two looks
    else:
        time.sleep(0.7)
    host.systemctl("kill", "--signal=KILL", API)
    host.until("the new container", lambda: marker in _command(host))
    host.until_ready("chat", "embed")
    assert host.hal0("plan", "--detailed-exitcode").returncode == 0


def _run(host: Host) -> str:
    """Return which run of its service a slot is in, and how that stands."""
    return host.systemctl("show", "--property=InvocationID,ActiveState", "hal0-slot@chat.service")


def _command(host: Host) -> list[str]:
    instance = host.slot("chat")["instance"] if host.systemctl("is-active", API, check=False) == "active" else None
    return instance["command"] if instance else []


def test_podman_gone_and_back_changes_nothing(host: Host) -> None:
    before = host.container("chat")
    host.systemctl("stop", "podman.socket", "podman.service")
    host.until("containers unknown", lambda: host.slot("chat")["instance"] is None)
    assert host.slot("chat")["state"] == "ready"
    host.systemctl("start", "podman.socket")
    host.until("containers known", lambda: host.slot("chat")["instance"])
    assert host.container("chat") == before


def test_dbus_gone_and_back_is_unknown_and_then_healed(host: Host) -> None:
    embed = host.container("embed")
    host.shell.run("systemctl", "stop", "dbus.service", "dbus.socket", check=False)
    unknown = host.until("unknown", lambda: _held(host, "embed", "Synced", status=None))
    assert unknown["reason"] == "Unknown"
    assert host.slot("embed")["state"] == "ready"
    host.podman("stop", "--time", "1", "hal0-slot-chat")
    host.shell.run("systemctl", "start", "dbus.socket", "dbus.service")
    host.until_ready("chat", "embed")
    assert host.container("chat")
    assert host.container("embed") == embed


def test_a_daemon_that_hangs_is_restarted_by_systemds_watchdog(host: Host) -> None:
    host.shell.run("mkdir", "-p", f"/etc/systemd/system/{API}.d")
    host.shell.write(f"/etc/systemd/system/{API}.d/fast.conf", "[Service]\nWatchdogSec=5\n")
    host.systemctl("daemon-reload")
    host.systemctl("restart", API)
    host.until_ready("chat")
    before = host.systemctl("show", "-P", "MainPID", API)
    time.sleep(6)
    assert host.systemctl("show", "-P", "MainPID", API) == before
    host.shell.run("sh", "-c", f"kill -STOP {before}")  # a shell has kill built in; procps need not be there
    host.until("another daemon", lambda: host.systemctl("show", "-P", "MainPID", API) not in {before, "0"})
    host.shell.run("rm", "-r", f"/etc/systemd/system/{API}.d")
    host.systemctl("daemon-reload")
    host.until_ready("chat", "embed")


def test_slots_settle_as_one_table(host: Host) -> None:
    listed = json.loads(host.hal0("slot", "list", "--json").stdout)["slots"]
    assert [slot["name"] for slot in listed] == ["chat", "embed"]
    assert all(is_settled(slot) for slot in listed)
    assert "chat" in host.hal0("slot", "list").stdout
