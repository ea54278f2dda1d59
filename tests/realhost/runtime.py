"""The OCI runtime of a box that lacks controllers or capabilities.

On a machine whose memory, cpu or pids controllers are bound to cgroup v1, or without CAP_SYS_RESOURCE, runc and crun
refuse a container that asks for such a limit. The box then runs the runtime through a script which hands it a copy of
the bundle without what cannot be enforced: podman still records the limits, and `Box.controllers` says which of them
are real.
"""

from __future__ import annotations

from pathlib import Path

CAP_SYS_RESOURCE = 24
LIMITERS = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
RUNTIME_PATH = "/usr/local/libexec/hal0-box-runtime"
FILTER_PATH = "/usr/local/libexec/hal0-box-filter"

RUNTIME_SCRIPT = """#!/bin/sh
for word in "$@"; do
  if [ "$word" = create ]; then exec @FILTER@ @RUNTIME@ "$@"; fi
done
exec @RUNTIME@ "$@"
"""

FILTER_SCRIPT = '''#!/usr/bin/python3 -IS
"""Runs an OCI runtime's `create` on a bundle without the limits that cannot be set in this box."""

import json
import os
import resource
import sys

CONTROLLERS = frozenset("@CONTROLLERS@".split())
MAY_RAISE = @MAY_RAISE@
OWNERS = {"memory": "memory", "pids": "pids", "blockIO": "io", "hugepageLimits": "hugetlb"}
UNLIMITED = 2**64 - 1


def without_absent_controllers(limits):
    kept = {key: value for key, value in limits.items() if OWNERS.get(key, "") in CONTROLLERS | {""}}
    kept["cpu"] = {
        key: value
        for key, value in (limits.get("cpu") or {}).items()
        if ("cpuset" if key in ("cpus", "mems") else "cpu") in CONTROLLERS
    }
    kept["unified"] = {
        key: value for key, value in (limits.get("unified") or {}).items() if key.split(".")[0] in CONTROLLERS
    }
    return {key: value for key, value in kept.items() if value or key not in ("cpu", "unified")}


def clamped(limit):
    hard = resource.getrlimit(getattr(resource, limit["type"]))[1]
    top = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    return {**limit, "hard": min(limit["hard"], top), "soft": min(limit["soft"], top)}


def filtered(config):
    linux, process = config["linux"], config["process"]
    linux["resources"] = without_absent_controllers(linux.get("resources") or {})
    if not MAY_RAISE:
        process["rlimits"] = [clamped(limit) for limit in process.get("rlimits") or ()]
        with open("/proc/self/oom_score_adj") as file:
            process["oomScoreAdj"] = max(process.get("oomScoreAdj", 0), int(file.read()))
    return config


def main(command):
    # Podman reads the limits back from its own bundle, so the runtime gets a second one.
    place = command.index("--bundle") + 1
    bundle = command[place]
    command[place] = os.path.join(bundle, "filtered")
    os.makedirs(command[place], exist_ok=True)
    with open(os.path.join(bundle, "config.json")) as file:
        config = filtered(json.load(file))
    with open(os.path.join(command[place], "config.json"), "w") as file:
        json.dump(config, file)
    os.execv(command[0], command)


main(sys.argv[1:])
'''


def has_capability(number: int) -> bool:
    """Whether this process holds the numbered capability."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def runtime_files(controllers: frozenset[str]) -> dict[str, str]:
    """Executables of the seed, by path relative to the root; none where every limit can be enforced."""
    if not needs_filter(controllers):
        return {}
    script = RUNTIME_SCRIPT.replace("@FILTER@", FILTER_PATH).replace("@RUNTIME@", f"/usr/bin/{_runtime()}")
    known = FILTER_SCRIPT.replace("@CONTROLLERS@", " ".join(sorted(controllers)))
    text = known.replace("@MAY_RAISE@", str(has_capability(CAP_SYS_RESOURCE)))
    return {RUNTIME_PATH.lstrip("/"): script, FILTER_PATH.lstrip("/"): text}


def needs_filter(controllers: frozenset[str]) -> bool:
    """Whether a container may ask for a limit which this box cannot set."""
    return not has_capability(CAP_SYS_RESOURCE) or not controllers >= LIMITERS


def containers_conf(controllers: frozenset[str]) -> str:
    """Podman's settings for a box with these controllers."""
    lines = ["[network]", 'network_backend = "netavark"']
    if needs_filter(controllers):
        runtime = _runtime()
        lines += ["[engine]", f'runtime = "{runtime}"', "[engine.runtimes]", f'{runtime} = ["{RUNTIME_PATH}"]']
    return "\n".join(lines) + "\n"


def _runtime() -> str:
    """Debian 12's crun raises RLIMIT_MEMLOCK whatever the container asks for, which takes the capability."""
    return "crun" if has_capability(CAP_SYS_RESOURCE) else "runc"
