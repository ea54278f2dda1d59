"""The options of ``docker run`` and ``podman run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hal0.core.importing.containers import Container
from hal0.core.importing.words import readable

_ALONE = frozenset(
    {"-d", "--detach", "-i", "--interactive", "-t", "--tty", "-it", "-ti", "-dit", "-itd", "--rm", "--init"}
    | {
        "--replace",
        "--read-only",
        "--privileged",
        "-P",
        "--publish-all",
        "--no-healthcheck",
        "--no-hosts",
        "--tls-verify",
    }
)
_MEANT = frozenset(
    {"-d", "--detach", "-i", "--interactive", "-t", "--tty", "-it", "-ti", "-dit", "-itd", "--rm", "--init", "--name"}
    | {
        "--replace",
        "--read-only",
        "--restart",
        "--pull",
        "--log-driver",
        "--hostname",
        "-h",
        "--label",
        "-l",
        "--sdnotify",
    }
    | {"--cgroups", "--security-opt=no-new-privileges", "--health-cmd", "--health-interval", "--health-retries"}
    | {"--health-start-period", "--health-timeout"}
)
"""What hal0 does itself, in its own way."""


def take_options(box: Container, words: Sequence[str]) -> list[str]:
    """Take a container's options from words; return those behind them: the image and its command."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        name, equals, value = words[at].partition("=")
        if not name.startswith("--") and len(name) > 2 and name not in _ALONE:  # noqa: PLR2004  (-p8080:80)
            name, equals, value = name[:2], "=", words[at][2:]
        elif not equals and name not in _ALONE:
            at += 1
            value = words[at] if at < len(words) else ""
        _take(box, name, value)
        at += 1
    return list(words[at:])


def _take(box: Container, name: str, value: str) -> None:
    take = _TAKES.get(name)
    if take:
        take(box, value)
    elif name not in _MEANT:
        box.lose(name, "hal0 has nothing like it")


def _gpus(box: Container, value: str) -> None:
    numbers = value.strip("'\"").removeprefix("device=")
    if count := int(numbers) if numbers.isdecimal() and "device" not in value and len(numbers) < 3 else 0:  # noqa: PLR2004
        box.gpus(str(number) for number in range(count))
    else:
        box.gpus(numbers.split(","))


def _runtime(box: Container, value: str) -> None:
    if value == "nvidia":
        box.gpus(["all"])
    else:
        box.lose("--runtime", "hal0 has podman's own")


def _mount(box: Container, value: str) -> None:
    parts = dict(part.partition("=")[::2] for part in value.split(","))
    source, target = (next((parts[key] for key in keys if key in parts), "") for keys in (_SOURCE, _TARGET))
    box.mount(f"{source}:{target}" + (":ro" if {"ro", "readonly"} & parts.keys() else ""))


_SOURCE, _TARGET = ("src", "source"), ("dst", "destination", "target")
_TAKES: Mapping[str, Callable[[Container, str], None]] = {
    **dict.fromkeys(("-v", "--volume"), Container.mount),
    **dict.fromkeys(("-e", "--env"), Container.variable),
    **dict.fromkeys(("-p", "--publish"), Container.publish),
    **dict.fromkeys(("-m", "--memory"), Container.memory),
    "--cpus": Container.cpus,
    "--shm-size": Container.shared_memory,
    "--device": lambda box, value: box.devices.append(value),
    "--group-add": lambda box, value: box.groups.append(value),
    "--entrypoint": lambda box, value: box.entrypoint.append(readable(value)),
    "--mount": _mount,
    "--gpus": _gpus,
    "--runtime": _runtime,
}
