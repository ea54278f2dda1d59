"""The same act in a user's own systemd, with rootless podman."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import REPOSITORY
from .host import Host, host_manifest, slot_manifest

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine
    from .session import UserSession

pytestmark = pytest.mark.realhost


@pytest.fixture(scope="module")
def host(box: Box, tester: UserSession, rootless_engine: Engine) -> Host:
    for folder in {parent for path in (sys.prefix, sys.base_prefix, REPOSITORY) for parent in Path(path).parents}:
        box.run("chmod", "o+x", str(folder), check=False)  # in the box only: a user may not look into root's home
    home = f"/home/{tester.name}"
    found = Host(tester, f"{home}/.config/hal0/manifests", scope="user")
    tester.run("mkdir", "-p", found.root)
    found.manifest("host.yaml", host_manifest(rootless_engine.model.parent, rootless_engine.image))
    found.manifest("chat.toml", slot_manifest("chat"))
    return found


def test_a_user_applies_twice_and_gets_a_real_answer(host: Host) -> None:
    host.hal0("install", "--no-start")
    assert "chat : ok=5    changed=4" in host.hal0("apply").stdout
    assert "changed=0" in host.hal0("apply", "--detailed-exitcode").stdout
    assert host.ask(f"http://127.0.0.1:{host.slot('chat')['port']}/v1", "chat")["whole"]
    assert host.systemctl("is-active", "hal0-slot@chat.service") == "active"


def test_a_users_daemon_heals_a_stopped_slot(host: Host) -> None:
    host.hal0("install")
    host.until_ready("chat")
    host.systemctl("stop", "hal0-slot@chat.service")
    host.healed("chat", after="service: stopped -> running")
    assert host.ask("http://127.0.0.1:8080/v1", "chat")["streamed"]
