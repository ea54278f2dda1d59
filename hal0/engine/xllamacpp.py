"""llama.cpp's own HTTP server in a Python process: ``python -m hal0.engine.xllamacpp --model FILE ...``.

Flags are llama-server's. The server listens at once and answers ``/health`` with 503 until the model is loaded.
Its log goes to stderr. Exits: 1 for a model or a port that can't be used, 2 for a bad command line, and by the
signal itself on SIGTERM or SIGINT.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import closing
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hal0.engine.flags import CHOICES, Parser

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROG = "hal0.engine.xllamacpp"
_DESCRIPTION = "Serve one GGUF model over HTTP with llama.cpp; flags are llama-server's."
_MAGIC = b"GGUF"
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal ends the process; return an exit status when it can't serve."""
    settings = Parser(PROG, _DESCRIPTION).settings(sys.argv[1:] if argv is None else argv)
    _die_at_once_when_told()
    problem = model_problem(settings["model.path"]) or port_problem(settings["hostnames"][0], settings["port"])
    if problem:
        return _fail(problem)
    try:
        import xllamacpp
    except ModuleNotFoundError:
        return _fail("xllamacpp is not installed: pip install 'hal0[embedded]'")
    except ImportError as error:
        return _fail(f"xllamacpp can't be loaded: {error} (on Debian: apt-get install libgomp1)")
    return _serve(xllamacpp, settings)


def _serve(library: Any, settings: Mapping[str, Any]) -> int:
    params = library.CommonParams()
    try:
        apply(params, settings, library)
        server = library.Server(params)
    except AttributeError as error:
        return _fail(f"this xllamacpp does not know a setting: {error}")
    except RuntimeError:  # its message is the same for every cause
        return _fail(f"can't load {settings['model.path']} (cut short, or of a newer kind?): the log above says why")
    _say(f"ready on {server.listening_address}")
    while True:
        signal.pause()


def apply(params: Any, settings: Mapping[str, Any], library: Any) -> None:
    """Put settings (target to value) into ``CommonParams``; raises ``AttributeError`` for an unknown one."""
    threads = settings.get("cpuparams.n_threads") or usable_threads()
    _set(params, "cpuparams.n_threads", threads)
    _set(params, "cpuparams_batch.n_threads", settings.get("cpuparams_batch.n_threads") or threads)
    if settings.get("reranking"):
        _set(params, "embedding", value=True)
        _set(params, "pooling_type", library.llama_pooling_type.LLAMA_POOLING_TYPE_RANK)
    enums = {choice.target: choice for choice in CHOICES}
    for target, value in settings.items():
        if (choice := enums.get(target)) is not None:
            _set(params, target, getattr(getattr(library, choice.enum), choice.member(value)))
        elif target != "reranking" and not target.startswith("cpuparams"):
            _set(params, target, value)
    if key := os.environ.get("LLAMA_API_KEY"):  # a secret has no place in an argv that anyone can read
        params.api_keys = [key]


def usable_threads() -> int:
    """Return how many CPUs this process may run on; more threads than that make each token slower by far."""
    return len(os.sched_getaffinity(0))


def model_problem(path: str) -> str:
    """Return why a file can't be a GGUF model, or nothing; llama.cpp itself says little about it."""
    try:
        with Path(path).open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        return f"can't read the model {path}: {error.strerror}"
    return "" if magic == _MAGIC else f"{path} is not a GGUF file (it begins with {magic!r})"


def port_problem(host: str, port: int) -> str:
    """Return why an address can't be listened on, or nothing; the engine would blame its parameters."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, proto)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return f"can't listen on {host}:{port}: {error.strerror}"
    return ""


def _die_at_once_when_told() -> None:
    """Let the kernel end the process on a stop signal.

    xllamacpp holds the interpreter's lock while it loads, and its destructor waits for open streams to end: a
    handler in Python would run minutes late. There is nothing to save.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _set(params: Any, target: str, value: object) -> None:
    *parents, name = target.split(".")
    setattr(reduce(getattr, parents, params), name, value)


def _say(line: str) -> None:
    print(f"{PROG}: {line}", file=sys.stderr, flush=True)  # noqa: T201  (the log of an engine is its stderr)


def _fail(line: str) -> int:
    _say(f"error: {line}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
