"""A real host is looked at by the doctor, and at last left as it was before hal0 came."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .host import Host, host_manifest, slot_manifest

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
UNITS = "/etc/systemd/system"
MINE = f"{UNITS}/hal0-slot@mine.service.d/50-hal0.conf"


@pytest.fixture(scope="module")
def host(box: Box, engine: Engine) -> Host:
    """One ready slot under the installed daemon."""
    made = Host(box, "/etc/hal0/manifests")
    made.manifest("host.yaml", host_manifest(engine.model.parent, engine.image))
    made.manifest("chat.toml", slot_manifest("chat"))
    made.hal0("install")
    made.until_ready("chat")
    return made


def card(host: Host) -> dict[str, dict[str, Any]]:
    """Return what the doctor does not find well, or not at all, by the name of the check."""
    done = host.hal0("doctor", "--json", check=False)
    found = json.loads(done.stdout)
    assert done.returncode == (3 if found["counts"]["fail"] else 0), done.stderr
    return {check["name"]: check for check in found["checks"]}


def test_the_doctor_finds_a_host_well_and_names_what_is_broken_since(host: Host) -> None:
    found = card(host)
    for name in ("systemd", "podman", "podman's socket", "units", "daemon", "valid", "ports", "models"):
        assert found[name]["verdict"] == "ok", found[name]
    host.systemctl("disable", "--quiet", "hal0-api.service")
    host.systemctl("stop", "podman.socket", "podman.service")
    host.shell.write(f"{UNITS}/hal0-slot@.service", "[Service]\nType=notify\n")
    broken = card(host)
    assert (broken["units"]["verdict"], broken["units"]["mend"]) == ("warn", "hal0 install")
    assert broken["boot"]["mend"] == "systemctl enable hal0.target hal0-api.service"
    assert broken["podman's socket"]["mend"] == "systemctl enable --now podman.socket"
    for name in ("podman's socket", "boot"):
        host.shell.run("sh", "-c", broken[name]["mend"])
    host.hal0("install")
    assert {card(host)[name]["verdict"] for name in ("units", "podman's socket")} == {"ok"}


def test_a_dropin_and_a_container_of_others_are_adopted(host: Host, engine: Engine) -> None:
    dropin, unit = host.dropin("taken"), "hal0-slot@taken.service"
    host.shell.run("mkdir", "-p", dropin.rpartition("/")[0])
    host.shell.write(dropin, "[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep 3600\n")
    host.podman("create", "--name", "hal0-slot-taken", engine.image, "/bin/true")
    host.systemctl("daemon-reload")
    host.systemctl("start", unit)
    host.manifest("taken.toml", slot_manifest("taken"))
    refused = host.hal0("apply", "--limit", "taken", "--timeout", "5", check=False)
    assert (refused.returncode, "hal0 slot adopt taken" in refused.stdout) == (3, True)
    host.hal0("slot", "adopt", "taken", "--force")
    host.until_ready("taken")
    assert host.container("taken")
    assert "sleep 3600" in host.shell.run("cat", f"{dropin}.bak").stdout
    host.hal0("slot", "delete", "taken", "--force")
    host.shell.run("rm", "-r", dropin.rpartition("/")[0])


def test_uninstall_takes_what_bears_the_mark_and_leaves_what_others_made(host: Host) -> None:
    host.shell.run("mkdir", "-p", MINE.rpartition("/")[0])
    host.shell.write(MINE, "[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep 3600\n")
    host.systemctl("daemon-reload")
    host.systemctl("start", "hal0-slot@mine.service")
    done = host.hal0("uninstall")
    assert f"left     slot mine: ForeignUnit: {MINE} does not carry hal0's mark" in done.stdout
    assert host.systemctl("is-active", "hal0-slot@mine.service") == "active"
    assert host.podman("ps", "--all", "--quiet", "--filter", "label=hal0.slot") == ""
    left = host.shell.run("sh", "-c", f"ls -d {UNITS}/*hal0*").stdout.split()
    assert left == [f"{UNITS}/hal0-slot@.service", MINE.rpartition("/")[0]]
    host.systemctl("stop", "hal0-slot@mine.service")
    host.shell.run("rm", "-r", MINE.rpartition("/")[0])


def test_a_second_uninstall_takes_the_rest_and_purge_what_was_remembered(host: Host) -> None:
    host.hal0("uninstall", "--purge", "--force")
    assert host.shell.run("sh", "-c", f"ls -d {UNITS}/*hal0* /var/lib/hal0", check=False).stdout == ""
    assert host.systemctl("list-units", "--all", "--plain", "--no-legend", "hal0*") == ""
    assert host.shell.run("ls", host.root).stdout.split() == ["chat.toml", "host.yaml"]
