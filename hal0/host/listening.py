"""Who listens on which TCP port, as /proc tells it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from hal0.host.cgroups import PROC, read

_LISTENING = "0A"
_IN_OUR_WAY = ("00000000", "0100007F", "0" * 32, "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")
"""Local addresses that keep 127.0.0.1 or all addresses from being listened on, in the kernel's spelling."""


def taken(ports: Collection[int], proc: Path = PROC) -> Mapping[int, str]:
    """Return those of some ports that are listened on, and by whom: ``nginx (pid 812)``, or empty where not to be seen.

    Raises ``OSError`` where /proc can't be read.
    """
    sockets = {inode: port for port, inode in _listening(proc) if port in ports}
    holders = _holders(frozenset(sockets), proc) if sockets else {}
    found = dict.fromkeys(sockets.values(), "")
    return found | {sockets[inode]: holder for inode, holder in holders.items()}


def _listening(proc: Path) -> Iterator[tuple[int, str]]:
    """Yield port and inode of each socket."""
    texts = [(proc / "net/tcp").read_text(), read(proc / "net/tcp6") or ""]
    for line in (line for text in texts for line in text.splitlines()[1:]):
        words = line.split()
        address, _, port = words[1].partition(":")
        if words[3] == _LISTENING and address in _IN_OUR_WAY:
            yield int(port, 16), words[9]


def _holders(inodes: frozenset[str], proc: Path) -> dict[str, str]:
    """Return what holds sockets, as far as this user may see it."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, str] = {}
    for process in proc.glob("[0-9]*"):
        if held := links.keys() & set(_open_files(process)):
            name = f"{read(process / 'comm') or 'a process'} (pid {process.name})"
            found |= {links[link]: name for link in held}
    return found


def _open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # another user's, or gone
        for file in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                yield str(file.readlink())
