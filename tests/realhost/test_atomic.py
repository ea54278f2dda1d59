"""``hal0 apply --atomic`` and ``hal0 rollback`` on a real host: an image or arguments that crash, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import images
from .host import Host, host_manifest, slot_manifest

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
ROOT = "/etc/hal0/manifests"
GOOD = slot_manifest("chat")


@pytest.fixture(scope="module")
def host(box: Box, engine: Engine) -> Host:
    """A host with one slot, that may name an image that crashes."""
    found = Host(box, ROOT)
    found.manifest("host.yaml", host_manifest(engine.model.parent, engine.image))
    profile = f"kind: Profile\nname: crash\nimage: {images.crash(box)}\nentrypoint: llama-server\n"
    found.manifest("crash.yaml", profile)
    found.manifest("chat.toml", GOOD)
    found.hal0("install", "--no-start")
    return found


def serves(host: Host) -> bool:
    """Return whether the slot gives a real answer."""
    port = host.slot("chat")["port"]
    return bool(host.ask(f"http://127.0.0.1:{port}/v1", "chat")["whole"])


def test_a_spec_that_answers_stays(host: Host) -> None:
    applied = host.hal0("apply", "--atomic")
    assert "chat : ok=5    changed=4    unreachable=0    failed=0" in applied.stdout
    assert serves(host)
    assert "Nothing to change" in host.hal0("apply", "--atomic").stdout


@pytest.mark.parametrize("bad", [{"profile": "crash"}, {"args": ["--no-such-option"]}], ids=["image", "args"])
def test_a_spec_that_crashes_is_taken_back(host: Host, bad: dict[str, object]) -> None:
    host.manifest("chat.toml", GOOD)
    host.hal0("apply")
    host.manifest("chat.toml", slot_manifest("chat", **bad))
    applied = host.hal0("apply", "--atomic", check=False)
    assert applied.returncode == 3
    assert "failed=1" in applied.stdout
    assert "rolled back: spec " in applied.stdout
    assert serves(host)
    again = host.hal0("apply", check=False)
    assert again.returncode == 3
    assert "Nothing to change: the host is what the manifests say, but for what was rejected." in again.stdout
    assert serves(host)
    assert "rolled-back" in host.hal0("history", "-n", "2").stdout
    assert "reject: spec " in host.hal0("why", "chat").stdout


def test_an_image_that_cant_be_had_leaves_the_engine_as_it_is(host: Host) -> None:
    host.manifest("chat.toml", GOOD)
    host.hal0("apply")
    container = host.container("chat")
    host.manifest("nowhere.yaml", "kind: Profile\nname: nowhere\nimage: localhost/no/such-image:1\n")
    host.manifest("chat.toml", slot_manifest("chat", profile="nowhere"))
    applied = host.hal0("apply", "--atomic", check=False)
    host.manifest("chat.toml", GOOD)
    host.remove_manifest("nowhere.yaml")
    assert applied.returncode == 3
    assert "no/such-image" in applied.stdout
    assert host.container("chat") == container


def test_a_bad_image_never_displaces_an_engine_that_it_could_be_tried_beside(host: Host) -> None:
    host.manifest("chat.toml", GOOD)
    host.hal0("apply")
    container = host.container("chat")
    host.manifest("chat.toml", slot_manifest("chat", profile="crash", context_size=320))
    applied = host.hal0("apply", check=False)
    assert applied.returncode == 3
    assert "      beside: pool ram has " in applied.stdout
    assert host.container("chat") == container
    assert serves(host)


def test_a_bad_image_that_was_applied_is_rolled_back(host: Host) -> None:
    host.manifest("chat.toml", GOOD)
    host.hal0("apply")
    host.manifest("chat.toml", slot_manifest("chat", profile="crash", context_size=256, replace="in-place"))
    assert host.hal0("apply", check=False).returncode == 3
    assert host.container("chat") == ""
    back = host.hal0("rollback", "--atomic")
    assert "  ~ chat.toml" in back.stdout
    assert host.shell.read(f"{ROOT}/chat.toml") == GOOD
    assert serves(host)
