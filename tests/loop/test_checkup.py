"""What the doctor looks at: beside each other where one may hold the others up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hal0.core.facts import Known, Unknown
from hal0.core.findings import Certificate
from hal0.host import trust
from hal0.host.scope import Scope
from hal0.loop import checkup
from hal0.loop.assembly import Settings


async def test_upstreams_are_looked_at_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL0_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HAL0_RUN", str(tmp_path / "run"))
    monkeypatch.setattr(checkup, "_PATIENCE", 60.0)
    both = threading.Barrier(2)

    def certificate(name: str, *_: object) -> Certificate:
        both.wait(30)
        return Certificate(name, "", Unknown("away"))

    monkeypatch.setattr(trust, "certificate", certificate)
    for name in ("one", "two"):
        text = f"kind: Upstream\nname: {name}\nbase_url: https://{name}.example/v1\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    found = await checkup.examine(Settings(tmp_path, Scope.of("user"), "process"), {}, {}, 0.0)
    assert isinstance(found.certificates, Known)
    assert [each.upstream for each in found.certificates.value] == ["one", "two"]
