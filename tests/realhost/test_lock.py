"""``hal0 lock`` with a real podman: two images behind one tag, and one that is known by its digest."""

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
BUILT, SHIPPED = "localhost/locked:1", "registry.invalid/hal0/locked:1"


@pytest.fixture(scope="module")
def host(box: Box, engine: Engine) -> Host:
    found = Host(box, ROOT)
    found.manifest("host.yaml", host_manifest(engine.model.parent, BUILT))
    found.manifest("chat.toml", slot_manifest("chat"))
    images.variant(box, "localhost/other:1", label="locked")
    for tag in (BUILT, SHIPPED):
        box.run("podman", "tag", engine.image, tag)
    found.hal0("install", "--no-start")
    return found


def running(host: Host) -> str:
    """Return the id of the image that the slot's container runs."""
    return host.podman("inspect", "--format", "{{.Image}}", "hal0-slot-chat").strip()


def test_an_image_that_was_built_here_stays_what_it_was_until_the_lock_says_otherwise(box: Box, host: Host) -> None:
    host.hal0("apply")
    refused = host.hal0("apply", "--locked", check=False)
    assert refused.returncode == 1
    assert "model smollm2: it is not locked" in refused.stderr
    one, two = images.image_id(box, BUILT), images.image_id(box, "localhost/other:1")
    host.hal0("lock")
    assert f'id = "{one}"' in host.shell.read(f"{ROOT}/hal0.lock")
    planned = host.hal0("plan").stdout
    assert f"image: {BUILT} -> id {one[:12]}" in planned
    assert "model: not locked -> sha256:" in planned
    host.hal0("apply", "--locked")
    assert running(host) == one

    box.run("podman", "tag", "localhost/other:1", BUILT)
    assert host.hal0("plan", "--detailed-exitcode").returncode == 0
    assert host.hal0("lock", "--check").returncode == 0
    assert host.hal0("lock", "--upgrade", "--check", check=False).returncode == 2
    host.hal0("lock", "--upgrade")
    assert f"chat runs something older: image: id {one[:12]}" in host.hal0("status").stdout
    host.hal0("apply", "--locked")
    assert running(host) == two

    host.hal0("rollback")
    assert f'id = "{one}"' in host.shell.read(f"{ROOT}/hal0.lock")
    assert running(host) == one


def test_an_image_of_a_repository_is_run_by_its_digest_whatever_its_tag_means(
    box: Box, host: Host, engine: Engine
) -> None:
    host.manifest("host.yaml", host_manifest(engine.model.parent, SHIPPED))
    one = images.image_id(box, SHIPPED)
    host.hal0("lock")
    assert 'digest = "sha256:' in host.shell.read(f"{ROOT}/hal0.lock")
    host.hal0("apply", "--locked")
    assert running(host) == one
    assert "registry.invalid/hal0/locked@sha256:" in host.podman("inspect", "hal0-slot-chat")
    box.run("podman", "tag", "localhost/other:1", SHIPPED)
    assert host.hal0("plan", "--detailed-exitcode").returncode == 0
    assert running(host) == one
