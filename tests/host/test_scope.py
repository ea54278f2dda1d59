from __future__ import annotations

from pathlib import Path

import pytest

from hal0.errors import UsageError
from hal0.host.scope import Scope

VARIABLES = ("HAL0_STATE", "HAL0_RUN", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES, "DBUS_SYSTEM_BUS_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")


def test_the_machine() -> None:
    scope = Scope.of("system")
    assert (scope.unit_dir, scope.state_dir) == (Path("/etc/systemd/system"), Path("/var/lib/hal0"))
    assert (scope.run_dir, scope.manifests) == (Path("/run/hal0"), Path("/etc/hal0/manifests"))
    assert scope.podman_socket == "unix:///run/podman/podman.sock"
    assert not scope.is_user


def test_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    scope = Scope.of("user")
    assert scope.unit_dir == Path("/home/ann/.config/systemd/user")
    assert scope.state_dir == Path("/home/ann/.local/state/hal0")
    assert scope.run_dir == Path("/run/user/7/hal0")
    assert scope.bus_address == "unix:path=/run/user/7/bus"
    assert scope.podman_socket == "unix:///run/user/7/podman/podman.sock"


def test_the_environment_moves_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, f"/x/{variable}")
    assert Scope.of("system").state_dir == Path("/x/HAL0_STATE")
    assert Scope.of("user").run_dir == Path("/x/HAL0_RUN")
    assert Scope.of("user").manifests == Path("/x/XDG_CONFIG_HOME/hal0/manifests")


def test_no_other_scope() -> None:
    with pytest.raises(UsageError):
        Scope.of("galaxy")
