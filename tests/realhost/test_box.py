"""The box itself: systemd, journald, D-Bus and podman are real, and nothing of it outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import images
from .box import CGROUP_PREFIX, Box, cgroup2_mount
from .shell import BoxError, Shell

if TYPE_CHECKING:
    from .conftest import Engine
    from .session import UserSession

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.realhost

SLOT_UNIT = """[Unit]
Description=A slot of the tests

[Service]
Type=notify
NotifyAccess=all
KillMode=mixed
Delegate=yes
SuccessExitStatus=143
TimeoutStartSec=60
ExecStart=/usr/bin/podman run --name hal0-slot-x --replace --rm -d --cgroups=split --sdnotify=conmon --read-only \\
  --cap-drop=all --security-opt=no-new-privileges --tmpfs /tmp -p 127.0.0.1:8081:8080 \\
  -v {models}:/models:ro {image} llama-server -m /models/{model} --host 0.0.0.0 --port 8080 --threads 2 --ctx-size 512
ExecStopPost=-/usr/bin/podman rm -v -f -i hal0-slot-x
"""
SLOT_URL = "http://127.0.0.1:8081"
QUESTION = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}


def _cgroups(runner: int) -> set[str]:
    """The cgroups of a test runner's boxes: another one may run beside it."""
    root = cgroup2_mount()
    assert root is not None
    return {path.name for path in root.glob(f"{CGROUP_PREFIX}{runner}-*")}


def _pids_in(namespace: str) -> list[str]:
    """The living processes of a pid namespace; a zombie only waits for whoever reaps it."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            dead = (process / "stat").read_text().rpartition(") ")[2].startswith("Z")
            if not dead and str((process / "ns/pid").readlink()) == namespace:
                pids.append(process.name)
    return pids


def test_boot_has_no_failed_unit(box: Box) -> None:
    assert box.run("systemctl", "is-system-running").stdout.strip() == "running"
    assert json.loads(box.run("systemctl", "list-units", "--failed", "--output=json").stdout) == []


def test_pid_1_is_systemd_and_sees_only_the_box(box: Box) -> None:
    assert box.read("/proc/1/comm").strip() == "systemd"
    assert Path(f"/proc/{box.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    assert box.run("ip", "-brief", "link").stdout.split()[0] == "lo"


def test_tmp_and_run_are_the_boxs_own(box: Box, tmp_path: Path) -> None:
    (tmp_path / "of-the-machine").touch()
    assert box.run("test", "-e", str(tmp_path), check=False).returncode == 1
    box.write("/run/of-the-box", "x")
    assert not Path("/run/of-the-box").exists()


def test_writes_stay_in_the_box(box: Box) -> None:
    box.write("/etc/hal0-box-test/file", "text\n", mode=0o600)
    assert box.read("/etc/hal0-box-test/file") == "text\n"
    assert box.run("stat", "-c", "%a", "/etc/hal0-box-test/file").stdout == "600\n"
    assert not Path("/etc/hal0-box-test").exists()


def test_binds_are_read_only_and_shared_directories_are_not(realhost_cache: Path, tmp_path: Path) -> None:
    seen, shared = tmp_path / "seen", tmp_path / "shared"
    seen.mkdir()
    shared.mkdir()
    (seen / "file").write_text("from the machine")
    with Box.boot(realhost_cache / "state-2", {seen: Path("/srv/seen")}, shared={shared: shared}) as other:
        assert other.read("/srv/seen/file") == "from the machine"
        assert other.run("touch", "/srv/seen/new", check=False).returncode != 0
        other.write(shared / "new", "from the box")
    assert (shared / "new").read_text() == "from the box"
    assert (seen / "file").exists()


def test_a_command_that_outlives_its_timeout_is_gone(box: Box) -> None:
    with pytest.raises(BoxError, match="no end within"):
        box.run("sleep", "4242", timeout=0.5)
    namespace = str(Path(f"/proc/{box.pid}/ns/pid").readlink())
    commands = [Path("/proc", pid, "cmdline").read_bytes() for pid in _pids_in(namespace)]
    assert commands
    assert not [command for command in commands if b"4242" in command]


def test_a_failing_command_says_why(box: Box) -> None:
    with pytest.raises(BoxError, match="No such file"):
        box.run("cat", "/nonexistent")


def test_popen_streams(box: Box) -> None:
    child = box.popen("cat")
    assert child.communicate("through the pipe", timeout=30)[0] == "through the pipe"


def test_journald_records_a_units_output(box: Box) -> None:
    box.run("systemd-run", "--wait", "--unit=hal0-says", "echo", "words for the journal")
    lines = [json.loads(line) for line in box.run("journalctl", "-u", "hal0-says", "-o", "json").stdout.splitlines()]
    assert "words for the journal" in [line["MESSAGE"] for line in lines]


def test_dbus_answers(box: Box) -> None:
    manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    answer = box.run("busctl", "get-property", *manager, "SystemState").stdout
    assert answer == 's "running"\n'


def test_podman_socket_answers(box: Box) -> None:
    answer = box.run("curl", "-sS", "--unix-socket", "/run/podman/podman.sock", "http://d/v4.0.0/libpod/_ping")
    assert answer.stdout == "OK"


def _ask(shell: Shell) -> str:
    """What the slot answers to a chat, from inside the box."""
    health = ["--retry", "60", "--retry-all-errors", "--retry-delay", "1", f"{SLOT_URL}/health"]
    shell.run("curl", "-sSf", *health, timeout=90)
    body = ["-d", json.dumps(QUESTION), "-H", "Content-Type: application/json"]
    answer = shell.run("curl", "-sSf", f"{SLOT_URL}/v1/chat/completions", *body, timeout=120)
    content: str = json.loads(answer.stdout)["choices"][0]["message"]["content"]
    return content


def _show(shell: Shell, systemctl: list[str], *names: str) -> list[str]:
    shown = shell.run(*systemctl, "show", "-p", ",".join(names), "slot-x.service").stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    return [found[name] for name in names]


def _serve_and_stop(shell: Shell, systemctl: list[str], units: str, engine: Engine) -> str:
    """Run the slot's unit through a chat and a stop; returns the cgroup it ran in."""
    unit = SLOT_UNIT.format(models=engine.model.parent, model=engine.model.name, image=engine.image)
    shell.write(f"{units}/slot-x.service", unit)
    shell.run(*systemctl, "daemon-reload")
    shell.run(*systemctl, "start", "slot-x.service", timeout=90)
    assert _ask(shell)
    (cgroup,) = _show(shell, systemctl, "ControlGroup")
    assert shell.run("podman", "ps", "--format", "{{.Names}}").stdout == "hal0-slot-x\n"
    shell.run(*systemctl, "stop", "slot-x.service", timeout=90)
    assert _show(shell, systemctl, "ActiveState", "Result") == ["inactive", "success"]
    assert shell.run("podman", "ps", "--all", "--quiet").stdout == ""
    return cgroup


def test_an_engine_under_a_unit_answers_a_chat(box: Box, engine: Engine) -> None:
    cgroup = _serve_and_stop(box, ["systemctl"], "/etc/systemd/system", engine)
    assert cgroup == "/system.slice/slot-x.service"


def test_an_engine_under_a_users_unit_answers_a_chat(tester: UserSession, rootless_engine: Engine) -> None:
    units = f"/home/{tester.name}/.config/systemd/user"
    cgroup = _serve_and_stop(tester, ["systemctl", "--user"], units, rootless_engine)
    assert cgroup == f"/user.slice/user-{tester.uid}.slice/user@{tester.uid}.service/app.slice/slot-x.service"


def test_a_users_podman_socket_answers(tester: UserSession) -> None:
    socket = f"{tester.runtime}/podman/podman.sock"
    answer = tester.run("curl", "-sS", "--unix-socket", socket, "http://d/v4.0.0/libpod/_ping")
    assert answer.stdout == "OK"


def test_podman_records_limits_which_the_box_may_not_enforce(box: Box, engine: Engine) -> None:
    limits = ["--memory=512m", "--cpus=1.5", "--pids-limit=100", "--ulimit=memlock=-1:-1"]
    box.run("podman", "run", "-d", "--name", "limited", *limits, engine.image, "sleep", "600")
    shown = box.run("podman", "inspect", "--format", "{{json .HostConfig}}", "limited").stdout
    box.run("podman", "rm", "--force", "--time=0", "limited")
    recorded = json.loads(shown)
    assert (recorded["Memory"], recorded["NanoCpus"], recorded["PidsLimit"]) == (512 << 20, 1_500_000_000, 100)


def test_a_variant_differs_from_its_base(box: Box, engine: Engine) -> None:
    other = images.variant(box, "localhost/hal0/llama-server:changed")
    assert other != images.image_id(box, engine.image)
    assert images.variant(box, "localhost/hal0/llama-server:changed") == other


def test_the_crash_image_exits_with_3(box: Box, engine: Engine) -> None:
    images.crash(box, base=engine.image)
    ran = box.run("podman", "run", "--rm", images.CRASH_TAG, "llama-server", check=False)
    assert (ran.returncode, ran.stderr) == (3, "crash image: refusing to serve\n")


def test_nothing_is_left_after_shutdown(realhost_cache: Path) -> None:
    mounts, cgroups = Path("/proc/self/mountinfo").read_text(), _cgroups(os.getpid())
    with Box.boot(realhost_cache / "state-2") as other:
        other.run("systemd-run", "--unit=lives", "sleep", "infinity")
        namespace = str(Path(f"/proc/{other.pid}/ns/pid").readlink())
        assert len(_pids_in(namespace)) > 2
        assert _cgroups(os.getpid()) != cgroups
    assert _pids_in(namespace) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert _cgroups(os.getpid()) == cgroups
    assert sorted(path.name for path in (realhost_cache / "state-2").iterdir()) == ["lock", "rootless", "storage"]


KILLED_RUNNER = """
import sys, time
from pathlib import Path
from tests.realhost.box import Box
box = Box.boot(Path(sys.argv[1]))
box.run("systemd-run", "--unit=lives", "sleep", "infinity")
print(Path(f"/proc/{box.pid}/ns/pid").readlink(), flush=True)
time.sleep(600)
"""


def test_a_killed_test_runner_takes_its_box_along(realhost_cache: Path) -> None:
    command = [sys.executable, "-c", KILLED_RUNNER, str(realhost_cache / "state-2")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        namespace = runner.stdout.readline().strip()
        assert _pids_in(namespace)
        runner.kill()
    # The lock is the dead runner's until its box is gone, so that this boot waits for just that.
    with Box.boot(realhost_cache / "state-2"):
        assert _pids_in(namespace) == []
    assert _cgroups(runner.pid) == set()
