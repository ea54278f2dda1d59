from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest

from hal0.core.facts import Known, Unknown
from hal0.core.observed import Instance
from hal0.core.pins import ImagePin
from hal0.errors import HostUnreachable, StepFailed
from hal0.host import podman as module
from hal0.host.cgroups import Limits
from hal0.host.podman import Podman
from hal0.host.scope import Scope

from .fake_podman import DIGEST, IMAGE, FakePodman, chunk, event, inspected, row_4, row_5

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

ARGV = ["/usr/bin/podman", "run", "--name", "hal0-slot-chat", "localhost/tiny:1"]
OURS = {"hal0.slot": "chat", "hal0.spec": "abc"}
CHAT = Instance("id-of-hal0-slot-chat", True, "chat", "abc", IMAGE, tuple(ARGV))


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakePodman]:
    fake = FakePodman(tmp_path / "podman.sock")
    await fake.serve()
    fake.inspections = {"id-of-hal0-slot-chat": inspected(ARGV)}
    yield fake
    await fake.close()


@pytest.fixture
async def podman(tmp_path: Path) -> AsyncIterator[Podman]:
    address = f"unix://{tmp_path}/podman.sock"
    podman = Podman(dataclasses.replace(Scope.of("system"), podman_socket=address))
    yield podman
    await podman.close()


@pytest.fixture
async def events(podman: Podman, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncGenerator[str]]:
    monkeypatch.setattr(module, "_BACKOFF_S", (0.05, 0.05))
    async with contextlib.aclosing(podman.events()) as events:
        yield events
    for thread in threading.enumerate():
        if thread.name == "podman-events":
            await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("row", [row_4, row_5], ids=["podman 4.3", "podman 5"])
async def test_a_slots_container(podman: Podman, fake: FakePodman, row: Callable[..., dict[str, Any]]) -> None:
    fake.containers = [row("hal0-slot-chat", **OURS), row("postgres")]
    assert await podman.containers() == Known({"chat": Known(CHAT)})


async def test_what_created_a_container_is_asked_once(podman: Podman, fake: FakePodman) -> None:
    fake.containers = [row_4("hal0-slot-chat", **OURS)]
    await podman.containers()
    fake.containers = [row_4("hal0-slot-chat", "exited", **OURS)]
    stopped = dataclasses.replace(CHAT, running=False)
    assert await podman.containers() == Known({"chat": Known(stopped)})
    assert fake.asked.count("/containers/id-of-hal0-slot-chat/json") == 1
    fake.containers = []
    assert await podman.containers() == Known({})
    assert podman._made == {}


async def test_a_running_containers_limits_are_read_at_each_look(
    podman: Podman, fake: FakePodman, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"/payload": Limits(2**30, 1.5)}
    monkeypatch.setattr(module, "limits_of", limits.__getitem__)
    fake.inspections["id-of-hal0-slot-chat"]["State"]["CgroupPath"] = "/payload"
    fake.containers = [row_4("hal0-slot-chat", **OURS)]
    assert await podman.containers() == Known({"chat": Known(dataclasses.replace(CHAT, memory=2**30, cpus=1.5))})
    limits["/payload"] = Limits(2**31, 0.0)
    assert await podman.containers() == Known({"chat": Known(dataclasses.replace(CHAT, memory=2**31, cpus=0.0))})
    assert fake.asked.count("/containers/id-of-hal0-slot-chat/json") == 1


async def test_a_container_that_does_not_run_has_no_limits_and_is_inspected_again_when_it_does(
    podman: Podman, fake: FakePodman
) -> None:
    fake.containers = [row_4("hal0-slot-chat", "created", **OURS)]
    assert await podman.containers() == Known({"chat": Known(dataclasses.replace(CHAT, running=False))})
    fake.containers = [row_4("hal0-slot-chat", **OURS)]
    await podman.containers()
    assert fake.asked.count("/containers/id-of-hal0-slot-chat/json") == 2


async def test_a_foreign_container_in_a_slots_name(podman: Podman, fake: FakePodman) -> None:
    fake.containers = [row_4("hal0-slot-chat")]
    foreign = dataclasses.replace(CHAT, slot="", spec_hash="")
    assert await podman.containers() == Known({"chat": Known(foreign)})


async def test_of_two_the_running_one_counts(podman: Podman, fake: FakePodman) -> None:
    fake.inspections["id-of-old"] = inspected(["old"])
    running, dead = row_4("hal0-slot-chat", **OURS), row_4("old", "exited", **OURS)
    for fake.containers in ([running, dead], [dead, running]):
        assert await podman.containers() == Known({"chat": Known(CHAT)})


async def test_one_that_vanishes_takes_no_other_along(podman: Podman, fake: FakePodman) -> None:
    fake.containers = [row_4("gone", **{"hal0.slot": "gone"}), row_4("hal0-slot-chat", **OURS)]
    assert await podman.containers() == Known({"chat": Known(CHAT)})


async def test_one_that_cannot_be_read_is_unknown_alone(podman: Podman, fake: FakePodman) -> None:
    fake.containers = [row_4("bad", **{"hal0.slot": "bad"}), row_4("hal0-slot-chat", **OURS)]
    fake.broken = {"/containers/id-of-bad/json"}
    found = await podman.containers()
    assert isinstance(found, Known)
    assert found.value["chat"] == Known(CHAT)
    assert found.value["bad"] == Unknown("podman: container of bad: storage is wedged")


async def test_a_failing_service_is_unknown(podman: Podman, fake: FakePodman) -> None:
    fake.broken = {"/containers/json", "/images/json"}
    assert await podman.containers() == Unknown("podman: storage is wedged")
    assert await podman.images(["localhost/tiny:1"]) == Unknown("podman: storage is wedged")


async def test_an_odd_answer_is_unknown(podman: Podman, fake: FakePodman) -> None:
    fake.containers = [{"Names": ["hal0-slot-chat"]}]
    assert isinstance(await podman.containers(), Unknown)


async def test_no_socket_is_unknown(podman: Podman, tmp_path: Path) -> None:
    reason = f"podman: no socket at {tmp_path}/podman.sock"
    assert await podman.containers() == Unknown(reason)
    assert await podman.images(["x"]) == Unknown(reason)
    with pytest.raises(HostUnreachable, match="no socket") as caught:
        await podman.pull("x")
    assert "podman.socket" in caught.value.hint


async def test_a_socket_without_a_service_is_unknown(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "podman.sock").touch()
    found = await podman.containers()
    assert isinstance(found, Unknown)
    assert "refused" in found.reason


async def test_a_hanging_service_is_unknown(podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_S", 0.2)
    done = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_unix_server(hang, tmp_path / "podman.sock")
    assert isinstance(await podman.containers(), Unknown)
    done.set()
    server.close()


async def test_images_by_every_kind_of_name(podman: Podman, fake: FakePodman) -> None:
    fake.image("localhost/tiny:1", "example.invalid/a/b:latest")
    fake.aliases = {"tiny:1": f"sha256:{IMAGE}", "a/b": IMAGE}
    qualified = ["localhost/tiny:1", "example.invalid/a/b", f"localhost/tiny@{DIGEST}"]
    assert await podman.images(qualified) == Known(dict.fromkeys(qualified, IMAGE))
    assert fake.asked == ["/images/json"]
    asked = ["tiny:1", "a/b", "localhost/tiny:2", "nothing"]
    assert await podman.images(asked) == Known(
        {"tiny:1": IMAGE, "a/b": IMAGE, "localhost/tiny:2": None, "nothing": None}
    )
    assert await podman.images([]) == Known({})


async def test_a_pull_that_works(podman: Podman, fake: FakePodman) -> None:
    fake.pulled = [{"stream": "Trying to pull..."}, {"images": [IMAGE], "id": IMAGE}]
    await podman.pull("example.invalid/a/b:2")
    assert await fake.pulls.get() == "example.invalid/a/b:2"


async def test_a_pull_that_fails_says_why_without_secrets(podman: Podman, fake: FakePodman) -> None:
    error = 'denied: Get "https://ann:s3cret@example.invalid/v2/?sig=t0ken": Bearer abc.def'
    fake.pulled = [{"stream": "Trying to pull..."}, {"error": error}]
    with pytest.raises(StepFailed, match="denied") as caught:
        await podman.pull("example.invalid/a/b:2")
    assert not any(secret in str(caught.value) for secret in ("s3cret", "t0ken", "abc.def"))
    assert "podman login" in caught.value.hint


async def test_a_short_name_that_fails_is_to_be_qualified(podman: Podman, fake: FakePodman) -> None:
    fake.pulled = [{"error": 'short-name "b:2" did not resolve to an alias'}]
    with pytest.raises(StepFailed) as caught:
        await podman.pull("a/b:2")
    assert "registry" in caught.value.hint


@pytest.mark.parametrize("status", [200, 500])
async def test_a_pull_without_an_image_is_no_pull(podman: Podman, fake: FakePodman, status: int) -> None:
    fake.pull_status = status
    fake.pulled = [{"stream": "Trying..."}] if status == 200 else [{"cause": "no", "message": "no"}]
    with pytest.raises(StepFailed):
        await podman.pull("example.invalid/a/b:2")


async def test_a_cancelled_pull_hangs_up(podman: Podman, fake: FakePodman) -> None:
    fake.pulled = None
    pull = asyncio.create_task(podman.pull("example.invalid/a/b:2"))
    await fake.pulls.get()
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    await fake.hung_up.wait()


async def test_events_name_slots(fake: FakePodman, events: AsyncGenerator[str]) -> None:
    assert await anext(events) == "*"
    stream = await fake.streams.get()
    for quiet in (
        event("container", "start", name="postgres"),
        event("container", "exec", **{"hal0.slot": "chat"}),
        event("container", "health_status", **{"hal0.slot": "chat"}),
    ):
        stream.write(chunk(quiet))
    stream.write(chunk(event("container", "died", name="x", **{"hal0.slot": "chat"})))
    assert await anext(events) == "chat"
    stream.write(chunk(event("container", "remove", name="hal0-slot-embed")))
    assert await anext(events) == "embed"
    stream.write(chunk(event("image", "untag", name="localhost/tiny:1")))
    assert await anext(events) == "*"


async def test_events_survive_the_service(fake: FakePodman, events: AsyncGenerator[str]) -> None:
    for _ in range(3):
        assert await anext(events) == "*"
        stream = await fake.streams.get()
        await fake.close()
        await stream.wait_closed()
        await fake.serve()


async def test_events_wait_for_a_socket_to_appear(tmp_path: Path, events: AsyncGenerator[str]) -> None:
    first = asyncio.create_task(anext(events))
    await asyncio.sleep(0.2)
    fake = FakePodman(tmp_path / "podman.sock")
    await fake.serve()
    assert await first == "*"
    await fake.close()


async def test_a_container_is_removed_and_one_that_is_not_there_is_no_error(podman: Podman, fake: FakePodman) -> None:
    await podman.remove("hal0-slot-chat")
    assert fake.asked == ["/containers/hal0-slot-chat"]


async def test_a_container_that_podman_does_not_remove_is_told_in_its_words(podman: Podman, fake: FakePodman) -> None:
    fake.broken.add("/containers/hal0-slot-chat")
    with pytest.raises(StepFailed, match="hal0-slot-chat is not removed: storage is wedged"):
        await podman.remove("hal0-slot-chat")
    await fake.close()
    with pytest.raises(HostUnreachable):
        await podman.remove("hal0-slot-chat")


D1, D2 = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


PINS = [
    ("registry.example/org/a:1", {"RepoDigests": [f"registry.example/org/a@{D1}"]}, ImagePin(digest=D1)),
    ("org/a:1", {"RepoDigests": [f"registry.example/org/a@{D1}"]}, ImagePin(digest=D1)),
    ("org/a:1", {"RepoDigests": [f"q.io/org/a@{D1}", f"q.io/org/a@{D2}"], "Digest": D2}, ImagePin(digest=D2)),
    ("org/a:1", {"RepoDigests": [f"q.io/org/a@{D2}", f"q.io/org/a@{D1}"]}, ImagePin(digest=D1)),
    ("org/a:1", {"RepoDigests": [f"q.io/x/a@{D1}", f"q.io/bigorg/a@{D1}"], "Digest": D1}, ImagePin(id="f" * 64)),
    ("localhost/a:1", {"RepoDigests": [f"localhost/a@{D1}"], "Digest": D1}, ImagePin(id="f" * 64)),
    ("localhost:5000/a:1", {"RepoDigests": [f"localhost:5000/a@{D1}"]}, ImagePin(digest=D1)),
    ("org/a:1", {}, ImagePin(id="f" * 64)),
]


@pytest.mark.parametrize(("ref", "image", "pin"), PINS)
async def test_an_image_is_locked_to_its_digest_or_its_id(
    podman: Podman, fake: FakePodman, ref: str, image: dict[str, Any], pin: ImagePin
) -> None:
    fake.images.append({"Id": f"sha256:{'f' * 64}", "RepoTags": [ref], **image})
    assert await podman.pin_of(ref) == pin


@pytest.mark.usefixtures("fake")
async def test_an_image_that_is_not_here_has_no_pin(podman: Podman) -> None:
    assert await podman.pin_of("org/a:1") is None


async def test_a_podman_that_is_away_is_no_missing_image(podman: Podman, fake: FakePodman) -> None:
    await fake.close()
    with pytest.raises(HostUnreachable, match="no socket"):
        await podman.pin_of("org/a:1")
