"""systemd's notification socket: READY, STATUS, WATCHDOG, STOPPING. Without one, nothing happens."""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> None:
    """Send state to systemd, for example ``READY=1``; a socket that is gone is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)
            sender.sendto("\n".join(lines).encode(), target)
    except OSError:
        return


def watchdog_interval() -> float | None:
    """Return how often to say WATCHDOG=1, in seconds: half of what systemd allows. None where it does not ask."""
    pid, microseconds = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000
