"""hal0 on a real host: its commands, its manifests and what they lead to."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

    from .shell import Shell

HAL0 = str(Path(sys.prefix, "bin", "hal0"))
DEADLINE_S = 60.0
_POLL_S = 0.1
_ASK = """
import json, sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="local", max_retries=0)
asked = dict(model=sys.argv[2], messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, temperature=0)
whole = client.chat.completions.create(**asked).choices[0].message.content
parts = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(stream=True, **asked)]
print(json.dumps({"whole": whole, "streamed": "".join(parts)}))
"""


class Host:
    """A shell on a host, with hal0 in it. ``root`` is the manifest root."""

    def __init__(self, shell: Shell, root: str, *, scope: str = "system") -> None:
        self.shell, self.root, self.scope = shell, root, scope
        self._manager = ["systemctl", *(["--user"] if scope == "user" else [])]
        self._told: list[dict[str, Any]] = []

    def hal0(self, *words: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of hal0."""
        return self.shell.run(HAL0, *words, check=check, timeout=timeout)

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run systemctl of this scope's manager and return what it printed."""
        return self.shell.run(*self._manager, *words, check=check, timeout=60).stdout.strip()

    def podman(self, *words: str, check: bool = True) -> str:
        """Run podman and return what it printed."""
        return self.shell.run("podman", *words, check=check, timeout=60).stdout.strip()

    def manifest(self, name: str, text: str) -> None:
        """Write a manifest, in place of what was there, at once."""
        self.shell.write(f"{self.root}/.{name}", text)
        self.shell.run("mv", f"{self.root}/.{name}", f"{self.root}/{name}")

    def remove_manifest(self, name: str) -> None:
        """Remove a manifest."""
        self.shell.run("rm", f"{self.root}/{name}")

    def status(self) -> dict[str, Any]:
        """Return what the daemon saw last, or a look of our own where none runs."""
        found: dict[str, Any] = json.loads(self.hal0("status", "--json").stdout)
        return found

    def slot(self, name: str) -> dict[str, Any]:
        """Return one slot in full."""
        found: dict[str, Any] = json.loads(self.hal0("slot", "show", name, "--json").stdout)
        return found

    def until(self, what: str, found: Callable[[], Any], *, within: float = DEADLINE_S) -> Any:
        """Return what ``found`` returns once it is true; the slots' journal tells why it never was."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if value := found():
                return value
            time.sleep(_POLL_S)
        journal = self.shell.run("journalctl", "--no-pager", "-n", "60", "-o", "short-precise", check=False).stdout
        raise AssertionError(f"never: {what}\n{json.dumps(self.status(), indent=1)}\n{journal}")

    def until_ready(self, *names: str) -> dict[str, dict[str, Any]]:
        """Wait until slots are ready, as declared and settled; return them."""

        def ready() -> dict[str, dict[str, Any]] | None:
            slots = {slot["name"]: slot for slot in self.status()["slots"]}
            return slots if all(is_settled(slots.get(name)) for name in names) else None

        found: dict[str, dict[str, Any]] = self.until(f"{names} ready", ready)
        return found

    def container(self, slot: str) -> str:
        """Return the id of a slot's container; empty where there is none."""
        return self.podman("ps", "--quiet", "--no-trunc", "--filter", f"label=hal0.slot={slot}")

    def dropin(self, slot: str) -> str:
        """Return the path of a slot's definition, in the system scope."""
        return f"/etc/systemd/system/hal0-slot@{slot}.service.d/50-hal0.conf"

    def healed(self, slot: str, *, after: str) -> dict[str, Any]:
        """Wait until hal0 has undone what was done to a slot; return what it says it did. An act is told once."""

        def act() -> dict[str, Any] | None:
            acts = [act for act in self.slot(slot)["acts"] if act["drift"] and after in act["why"]]
            return acts[0] if acts and acts[0] not in self._told else None

        found: dict[str, Any] = self.until(f"{slot} healed after {after!r}", act)
        self._told.append(found)
        self.until_ready(slot)
        return found

    def ask(self, base_url: str, model: str) -> dict[str, str]:
        """Have the real OpenAI client ask, once whole and once streamed."""
        found: dict[str, str] = json.loads(
            self.shell.run(sys.executable, "-c", _ASK, base_url, model, timeout=90).stdout
        )
        return found


def condition(slot: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return one condition of a slot."""
    found: dict[str, Any] = next(item for item in slot["conditions"] if item["type"] == kind)
    return found


def is_settled(slot: dict[str, Any] | None) -> bool:
    """Return whether a slot is ready and nothing is pending."""
    if slot is None:
        return False
    conditions = {item["type"]: item["status"] for item in slot["conditions"]}
    return bool(slot["ready"] and conditions["Synced"] and conditions["Reconciling"] is False)


def host_manifest(models: Path, image: str) -> str:
    """Return a Host, a Model and a Profile for the tests' engine. ``models`` is the model directory on the host."""
    return f"""kind: Host
model_dir: {models}
resync: 5s
---
kind: Model
name: smollm2
path: SmolLM2-135M-Instruct.Q4_1.gguf
---
kind: Profile
name: test
image: {image}
entrypoint: llama-server
args: [--parallel, 1, --no-webui]
stop_timeout: 5s
"""


def slot_manifest(name: str, **settings: object) -> str:
    """Return a slot of the tests' engine."""
    made = {"name": name, "model": "smollm2", "profile": "test", "context_size": 512, **settings}
    return 'kind = "Slot"\n' + "".join(f"{key} = {json.dumps(value)}\n" for key, value in made.items())
