"""``hal0 plan`` and ``hal0 apply`` without a daemon, on a real host."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from .host import HAL0, Host, host_manifest, slot_manifest

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
ROOT = "/etc/hal0/manifests"


@pytest.fixture(scope="module")
def host(box: Box, engine: Engine) -> Host:
    found = Host(box, ROOT)
    found.manifest("host.yaml", host_manifest(engine.model.parent, engine.image))
    found.manifest("chat.toml", slot_manifest("chat", aliases=["small"]))
    found.hal0("install", "--no-start")
    return found


def test_apply_brings_a_slot_up_and_a_second_one_changes_nothing(host: Host) -> None:
    planned = host.hal0("plan", "--detailed-exitcode", check=False)
    assert planned.returncode == 2
    assert "+ chat" in planned.stdout
    first = host.hal0("apply")
    assert "chat : ok=5    changed=4    unreachable=0    failed=0" in first.stdout
    container = host.container("chat")
    assert container
    again = host.hal0("apply", "--detailed-exitcode")
    assert "Plan: 0 to create, 0 to change, 0 to delete." in again.stdout
    assert "changed=0" in again.stdout
    assert host.hal0("plan", "--detailed-exitcode").returncode == 0
    assert host.container("chat") == container


def test_the_slot_really_answers(host: Host) -> None:
    host.hal0("apply")
    port = host.slot("chat")["port"]
    answer = host.ask(f"http://127.0.0.1:{port}/v1", "chat")
    assert answer["whole"]
    assert answer["streamed"] == answer["whole"]


def test_the_container_is_hardened_and_listens_on_loopback_only(host: Host) -> None:
    host.hal0("apply")
    seen = json.loads(host.podman("inspect", "hal0-slot-chat"))[0]
    assert seen["HostConfig"]["ReadonlyRootfs"]
    assert not seen["EffectiveCaps"]
    assert "no-new-privileges" in seen["HostConfig"]["SecurityOpt"]
    assert [bind["HostIp"] for binds in seen["NetworkSettings"]["Ports"].values() for bind in binds] == ["127.0.0.1"]
    assert [mount["RW"] for mount in seen["Mounts"] if mount["Destination"] == "/models"] == [False]


def test_the_logs_of_a_slot_are_its_units_journal(host: Host) -> None:
    host.hal0("apply")
    assert "listening on" in host.hal0("slot", "logs", "chat").stdout


def test_check_changes_nothing(host: Host) -> None:
    host.hal0("apply")
    host.manifest("chat.toml", slot_manifest("chat", aliases=["small"], args=["--temp", "0"]))
    before = host.shell.read(host.dropin("chat"))
    checked = host.hal0("apply", "--check", "--diff", "--detailed-exitcode", check=False)
    assert checked.returncode == 2
    assert "--temp 0" in checked.stdout
    assert host.shell.read(host.dropin("chat")) == before


def test_a_bad_manifest_is_refused_whole(host: Host) -> None:
    host.hal0("apply")
    container = host.container("chat")
    host.manifest("bad.toml", 'kind = "Slot"\nname = "bad"\nmodle = "smollm2"\n')
    refused = host.hal0("apply", check=False)
    host.remove_manifest("bad.toml")
    assert refused.returncode == 1
    assert f"{ROOT}/bad.toml:3: modle: unknown key (did you mean 'model'?)" in refused.stderr
    assert host.container("chat") == container


def test_a_limit_applies_one_slot(host: Host) -> None:
    host.hal0("apply")
    host.manifest("one.toml", slot_manifest("one"))
    host.manifest("two.toml", slot_manifest("two"))
    applied = host.hal0("apply", "--limit", "two")
    assert "two : ok=5" in applied.stdout
    assert not host.container("one")
    assert host.container("two")
    host.remove_manifest("one.toml")
    host.remove_manifest("two.toml")
    assert "Plan: 0 to create, 0 to change, 1 to delete." in host.hal0("apply").stdout


def test_a_slot_that_cant_start_fails_with_its_last_words(host: Host, box: Box) -> None:
    from . import images

    profile = f"kind: Profile\nname: crash\nimage: {images.crash(box)}\nentrypoint: llama-server\n"
    host.manifest("crash.yaml", f"{profile}---\nkind: Slot\nname: crash\nmodel: smollm2\nprofile: crash\n")
    failed = host.hal0("apply", check=False)
    host.remove_manifest("crash.yaml")
    assert failed.returncode == 3
    assert "crash : ok=5" in failed.stdout
    assert "failed=1" in failed.stdout
    assert "start-limit-hit" in failed.stdout or "last lines" in failed.stdout
    host.hal0("apply")
    assert host.systemctl("show", "-P", "ActiveState", "hal0-slot@crash.service") == "inactive"


def test_an_image_that_cant_be_had_is_named_with_what_to_do(host: Host) -> None:
    profile = "kind: Profile\nname: nowhere\nimage: localhost/no/such-image:1\n"
    host.manifest("nowhere.yaml", f"{profile}---\nkind: Slot\nname: nowhere\nmodel: smollm2\nprofile: nowhere\n")
    failed = host.hal0("apply", "--limit", "nowhere", check=False)
    host.remove_manifest("nowhere.yaml")
    assert failed.returncode == 3
    assert "no/such-image" in failed.stdout
    host.hal0("apply", check=False)


def test_a_unit_that_is_not_hal0s_is_refused(host: Host) -> None:
    path = host.dropin("mine")
    host.shell.run("mkdir", "-p", path.rpartition("/")[0])
    host.shell.write(path, "[Service]\nExecStart=/bin/sleep 1000\nType=simple\n")
    host.manifest("mine.toml", slot_manifest("mine"))
    refused = host.hal0("apply", check=False)
    assert refused.returncode == 3
    assert "ForeignUnit" in refused.stdout
    assert host.shell.read(path).startswith("[Service]\nExecStart=/bin/sleep")
    host.remove_manifest("mine.toml")
    host.shell.run("rm", "-r", path.rpartition("/")[0])


def test_a_slot_is_loaded_restarted_and_unloaded_by_hand(host: Host) -> None:
    host.manifest("hand.toml", slot_manifest("hand", run="never"))
    host.hal0("apply")
    loaded = host.hal0("slot", "load", "hand", "--for", "2h")
    assert "  = hand  run: never -> up (by root until " in loaded.stdout
    assert "hand : ok=3    changed=2" in loaded.stdout
    first = host.container("hand")
    assert first
    assert "Plan: 0 to create, 0 to change, 0 to delete." in host.hal0("apply", "--limit", "hand").stdout
    host.hal0("slot", "restart", "hand")
    assert host.container("hand") not in {"", first}
    host.hal0("slot", "unload", "hand")
    assert host.container("hand") == ""
    host.hal0("slot", "load", "hand", "--for", "2s", "--no-wait")
    time.sleep(2.0)  # an override's expiry is by the clock on the wall
    assert "overridden by hand" not in host.hal0("apply", "--limit", "hand").stdout
    assert host.container("hand") == ""
    host.remove_manifest("hand.toml")
    host.hal0("apply")


def test_two_applies_at_once_act_one_after_the_other(host: Host) -> None:
    host.manifest("chat.toml", slot_manifest("chat", args=["--temp", "0.5"]))
    both = host.shell.run("sh", "-c", f"{HAL0} apply & {HAL0} apply & wait", timeout=120)
    assert both.stdout.count("SLOT RECAP") == 2
    assert both.stdout.count("1 to change") == 1


def test_the_shipped_units_and_every_seed_profile_pass_systemds_own_check(host: Host, engine: Engine) -> None:
    devices = {"llama-server-vulkan": "gpu-vulkan", "llama-server-rocm": "gpu-rocm", "llama-server-cuda": "gpu-cuda"}
    text = "---\n".join(
        f"kind: Slot\nname: {profile}\nmodel: smollm2\ndevice: {device}\nrun: never\n"
        for profile, device in {"llama-server-cpu": "cpu", **devices}.items()
    )
    host.manifest("seeds.yaml", text)
    host.hal0("apply")
    for name in ("llama-server-cpu", *devices):
        host.shell.run("systemd-analyze", "verify", f"hal0-slot@{name}.service")
    host.shell.run("systemd-analyze", "verify", "hal0-api.service", "hal0.target")
    host.remove_manifest("seeds.yaml")
    host.hal0("apply", "--prune-all")
    assert engine.image
