"""What the doctor asks of a machine: files and links as kernels, podman and systemd lay them out, and real sockets."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from hal0.core.facts import Known, Unknown
from hal0.core.findings import Cgroups, Gpu, Trust, UnitState
from hal0.host import checkup, gpus, listening, trust, unit_files
from hal0.host.scope import Scope

SHIPPED = {"hal0-slot@.service": "[Service]\nDelegate=yes\n", "hal0-api.service": "[Service]\nExecStart=/a serve /r\n"}


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scope:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Scope.of("user")


# Units.


def test_units_are_as_shipped_whatever_root_and_interpreter_the_daemon_was_installed_with(scope: Scope) -> None:
    put(scope.unit_dir / "hal0-slot@.service", SHIPPED["hal0-slot@.service"])
    put(scope.unit_dir / "hal0-api.service", "[Service]\nExecStart=/other serve /elsewhere\n")
    assert set(unit_files.unit_states(scope, SHIPPED).values()) == {UnitState.CURRENT}


def test_units_that_are_older_masked_or_not_there_are_told(scope: Scope) -> None:
    put(scope.unit_dir / "hal0-slot@.service", "[Service]\n")
    (scope.unit_dir / "hal0-api.service").symlink_to("/dev/null")
    states = unit_files.unit_states(scope, {**SHIPPED, "hal0.target": ""})
    assert list(states.values()) == [UnitState.OLDER, UnitState.MASKED, UnitState.ABSENT]


def test_what_others_put_in_the_place_of_a_slot_is_foreign_and_their_own_dropins_are_not(scope: Scope) -> None:
    put(scope.unit_dir / "hal0-slot@one.service", "[Service]\n")
    (scope.unit_dir / "hal0-slot@two.service").symlink_to("/dev/null")
    put(scope.unit_dir / "hal0-slot@three.service.d" / "50-hal0.conf", "[Service]\nNice=5\n")
    put(scope.unit_dir / "hal0-slot@four.service.d" / "60-mine.conf", "[Service]\nNice=5\n")
    found = {
        Path(path).relative_to(scope.unit_dir).as_posix(): state
        for path, state in unit_files.unit_states(scope, {}).items()
    }
    assert found == {
        "hal0-slot@one.service": UnitState.FOREIGN,
        "hal0-slot@two.service": UnitState.MASKED,
        "hal0-slot@three.service.d/50-hal0.conf": UnitState.FOREIGN,
    }


def test_the_daemon_starts_with_the_machine_once_both_links_are_there(scope: Scope) -> None:
    for link in ("default.target.wants/hal0.target", "hal0.target.wants/hal0-api.service"):
        assert not unit_files.is_enabled(scope)
        (scope.unit_dir / link).parent.mkdir(parents=True)
        (scope.unit_dir / link).symlink_to("/nowhere")
    assert unit_files.is_enabled(scope)


@pytest.mark.parametrize(
    "line", ["LoadCredential=key:/k", "LoadCredentialEncrypted=key:/k", "SetCredential=key:x", "LoadCredential=key"]
)
def test_a_credential_is_given_by_the_unit_or_a_dropin(scope: Scope, line: str) -> None:
    assert not unit_files.loads_credential(scope, "key")
    put(scope.unit_dir / "hal0-api.service.d" / "override.conf", f"[Service]\n{line}\n")
    assert unit_files.loads_credential(scope, "key")
    assert not unit_files.loads_credential(scope, "ke")


# Ports.


def test_a_port_that_is_listened_on_is_told_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (held,) = listening.taken([port]).items()
    assert held[0] == port
    assert held[1].endswith(f"(pid {os.getpid()})")
    assert listening.taken([port]) == {}


TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@pytest.mark.parametrize(
    ("address", "state", "is_taken"),
    [
        ("0100007F:1F90", "0A", True),
        ("00000000:1F90", "0A", True),
        ("0100A8C0:1F90", "0A", False),  # 192.168.0.1
        ("0100007F:1F90", "01", False),  # established
        ("0100007F:1F91", "0A", False),
    ],
)
def test_only_listeners_on_loopback_or_all_addresses_are_in_the_way(
    tmp_path: Path, address: str, state: str, *, is_taken: bool
) -> None:
    row = f"   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 4711 1 0 100 0 0 10 0\n"
    put(tmp_path / "net" / "tcp", TCP + row)
    assert listening.taken([8080], tmp_path) == ({8080: ""} if is_taken else {})


# GPUs.


def machine(root: Path, *, node: bool = True) -> Path:
    driver = root / "sys/bus/pci/drivers/amdgpu"
    device = root / "sys/bus/pci/devices/0000:03:00.0"
    for folder in (driver, device, root / "sys/class/drm/renderD128"):
        folder.mkdir(parents=True)
    put(device / "class", "0x030000\n")
    (device / "driver").symlink_to(driver)
    (root / "sys/class/drm/renderD128/device").symlink_to(device)
    if node:
        put(root / "dev/dri/renderD128")
    return device


def test_a_gpu_is_its_node_driver_and_group(tmp_path: Path) -> None:
    machine(tmp_path)
    (gpu,) = gpus.gpus(tmp_path)
    assert (gpu.node, gpu.driver, gpu.usable) == ("/dev/dri/renderD128", "amdgpu", True)
    assert gpu.group
    assert gpus.driverless(tmp_path) == ()


def test_a_gpu_of_the_host_that_this_container_was_not_given_has_no_group(tmp_path: Path) -> None:
    machine(tmp_path, node=False)
    assert gpus.gpus(tmp_path) == (Gpu("/dev/dri/renderD128", "amdgpu", "", usable=False),)


def test_a_display_that_no_driver_has_taken_is_named_by_its_address_and_id(tmp_path: Path) -> None:
    device = machine(tmp_path)
    (device / "driver").unlink()
    put(device / "vendor", "0x10de\n")
    put(device / "device", "0x2684\n")
    assert gpus.driverless(tmp_path) == ("0000:03:00.0 (10de:2684)",)


@pytest.mark.parametrize(
    "text",
    [
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: all}]\n",
        '{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}',
    ],
)
def test_devices_are_paths_or_names_that_a_cdi_file_describes(tmp_path: Path, text: str) -> None:
    put(tmp_path / "dev/kfd")
    devices = ("/dev/kfd", "/dev/dri:/dev/dri:rw", "nvidia.com/gpu=all", "nvidia.com/gpux=all")
    assert gpus.missing(devices, tmp_path) == devices[1:]
    put(tmp_path / "etc/cdi/nvidia.yaml", text)
    assert gpus.missing(devices, tmp_path) == (devices[1], devices[3])
    put(tmp_path / "etc/cdi/other.yaml", "none of CDI's")
    assert gpus.missing(devices, tmp_path) == (devices[1],)


# The machine.


def test_file_systems_are_told_once_with_all_that_they_hold(tmp_path: Path) -> None:
    (volume,) = checkup.volumes({"models": str(tmp_path / "not/there/yet"), "state": str(tmp_path)})
    assert volume.uses == ("models", "state")
    assert Path(volume.path).is_mount()
    assert 0 <= volume.free <= volume.total


def test_controllers_are_those_of_the_users_manager_where_there_is_one(tmp_path: Path, scope: Scope) -> None:
    assert checkup.cgroups(scope, tmp_path) == Cgroups(1, frozenset())
    put(tmp_path / "cgroup.controllers", "cpu memory pids io\n")
    assert checkup.cgroups(scope, tmp_path) == Cgroups(2, frozenset({"cpu", "memory", "pids", "io"}))
    user = os.getuid()
    put(tmp_path / f"user.slice/user-{user}.slice/user@{user}.service/cgroup.controllers", "memory pids\n")
    assert checkup.cgroups(scope, tmp_path) == Cgroups(2, frozenset({"memory", "pids"}))


def test_a_daemon_answers_where_its_socket_is_listened_on(scope: Scope) -> None:
    path = scope.run_dir / "hal0.sock"
    assert not checkup.daemon_answers(scope)
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert checkup.daemon_answers(scope)
    assert not checkup.daemon_answers(scope)


# Certificates.


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def upstream(keys: Path) -> Any:
    """Answer handshakes, and no request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    with socket.create_server(("localhost", 0)) as server:

        def serve() -> None:
            try:
                with context.wrap_socket(server.accept()[0], server_side=True) as secured:
                    secured.recv(1)
            except OSError:  # whoever does not trust it hangs up
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://localhost:{server.getsockname()[1]}/v1"
        thread.join()


def test_an_upstreams_certificate_is_trusted_by_the_bundle_that_the_environment_names(
    upstream: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(keys / "cert.pem"))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    found = trust.certificate("own", upstream, 30.0)
    assert isinstance(found.expires, Known)
    assert found.trouble == ""
    assert trust.bundles() == (Trust(str(keys / "cert.pem"), "SSL_CERT_FILE", 1),)


def test_a_certificate_that_nobody_vouches_for_is_told_with_the_reason(upstream: str) -> None:
    found = trust.certificate("own", upstream, 30.0)
    assert "self-signed" in found.trouble.replace(" ", "-")
    assert isinstance(found.expires, Unknown)


def test_an_upstream_that_is_away_has_no_certificate_to_judge() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    found = trust.certificate("own", f"https://127.0.0.1:{port}/v1", 30.0)
    assert (found.trouble, found.expires) == ("", Unknown("no connection: Connection refused"))


def test_bundles_that_are_named_and_hold_nothing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(put(tmp_path / "text.pem", "no certificate")))
    first, second = trust.bundles()
    assert first == Trust(str(tmp_path / "none.pem"), "SSL_CERT_FILE", 0)
    assert second == Trust(str(tmp_path / "text.pem"), "REQUESTS_CA_BUNDLE", 0)
