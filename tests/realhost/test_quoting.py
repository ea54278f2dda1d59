"""systemd reads back exactly the words that were quoted for it."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from hal0.core.quote import systemd_join

if TYPE_CHECKING:
    from .box import Box

pytestmark = pytest.mark.realhost
NASTY = [
    *("", " ", ";", "a;b", "%", "%i", "%%", "$", "$HOME", "${HOME}", "$$", "\\", "\\\\", '"', "'", "a'b", 'a"b'),
    *("\t", "\n", "\r", "\x01", "\x7f", "é", "日本", "🦙", "\\x41", "\\n", "a b", "#", "-x", "@", "!", ":", "+", "a\\"),
    *('{"a": "b c"}', "--flag=%d", "*", "?", "~", "|", "&", ">", "`x`", "$(x)", "=", "a=b c", "\u00a0", "\ufeff"),
]


def words(seed: int) -> list[str]:
    chance = random.Random(seed)  # noqa: S311  (cases, not secrets)
    return ["".join(chance.choices(NASTY, k=chance.randint(1, 6))) for _ in range(60)]


@pytest.mark.parametrize("seed", range(4))
def test_exec_start_comes_back_as_it_was_given(box: Box, seed: int) -> None:
    argv = ["/bin/true", *NASTY, *words(seed)]
    box.write(f"/etc/systemd/system/quote{seed}.service", f"[Service]\nExecStart={systemd_join(argv)}\n")
    box.run("systemctl", "daemon-reload")
    path = f"/org/freedesktop/systemd1/unit/quote{seed}_2eservice"
    command = ("busctl", "--json=short", "get-property", "org.freedesktop.systemd1", path)
    seen = json.loads(box.run(*command, "org.freedesktop.systemd1.Service", "ExecStart").stdout)["data"]
    # $$ is undone when the command is executed, not when it is read.
    assert [word.replace("$$", "$") for word in seen[0][1]] == argv


def test_a_command_really_receives_its_words(box: Box) -> None:
    script = "/root/argv.py"
    box.write(script, "import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    argv = ["/usr/bin/python3", script, *NASTY, *words(9)]
    unit = f"[Service]\nType=oneshot\nExecStart={systemd_join(argv)}\nStandardOutput=file:/root/argv.json\n"
    box.write("/etc/systemd/system/argv.service", unit)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "argv.service")
    assert json.loads(box.read("/root/argv.json")) == argv[2:]
