"""A host in memory, behind the same ports as the real one: for time and for faults."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from hal0.core.facts import Fact, Known, Unknown
from hal0.core.hardware import Cpu, Disk, Machine, Memory, Platform, Sample
from hal0.core.model import ListedFile, Progress, Source, Version
from hal0.core.observed import Activity, Definition, Instance, ProbeResult, Service, SlotObservation
from hal0.core.pins import ImagePin
from hal0.core.pools import Pool
from hal0.core.proof import Ask, Reply
from hal0.core.steps import Plan, StepKind
from hal0.errors import HostUnreachable, StepFailed

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


def exec_start(text: str) -> tuple[str, ...]:
    """Read ExecStart= of a drop-in back, as systemd would."""
    line = [line for line in text.replace("\\\n", " ").split("\n") if line.startswith("ExecStart=")][-1].removeprefix(
        "ExecStart="
    )
    words = [_unescape(quoted) if quoted else plain for quoted, plain in _WORD.findall(line)]
    return tuple(word.replace("%%", "%").replace("$$", "$") for word in words)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if m[1].startswith("x") else _NAMED[m[1]], text)


@dataclass
class FakeHost:
    """systemd, podman and a disk, reduced to what hal0 relies on.

    ``doomed`` names slots, or words of a command: an engine of theirs ends at once, for good.
    """

    files: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    activity: dict[str, Activity] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    operator_dropins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)
    reloads: int = 0

    def write(self, slot: str, text: str) -> None:
        self.files[slot] = text
        self.stale.add(slot)

    def remove(self, slot: str) -> None:
        self.files.pop(slot, None)
        self.stale.add(slot)

    def reload(self) -> None:
        self.reloads += 1
        for slot in self.stale:
            if slot in self.files:
                self.loaded[slot] = exec_start(self.files[slot])
            else:
                self.loaded.pop(slot, None)
        self.stale.clear()

    def start(self, slot: str) -> None:
        if slot not in self.loaded:
            raise StepFailed(f"Unit hal0-slot@{slot}.service has a bad unit file setting")
        argv = self.loaded[slot]
        image = next((word for word in argv if word in self.images), "")
        labels = dict(word.removeprefix("--label=").split("=", 1) for word in argv if word.startswith("--label="))
        self.starts[slot] = self.starts.get(slot, 0) + 1
        self.restarts[slot] = 0
        self.activity[slot] = Activity.ACTIVE
        self.instances[slot] = Instance(
            id=f"{slot}-{self.starts[slot]}",
            running=True,
            slot=labels.get("hal0.slot", ""),
            spec_hash=labels.get("hal0.spec", ""),
            image=self.images.get(image, ""),
            command=argv,
        )
        if self.doomed & {slot, *argv}:
            self.die(slot)

    def restart(self, slot: str) -> None:
        """Start a slot's engine again that ended, as the service manager does by itself."""
        restarts = self.restarts.get(slot, 0) + 1
        self.start(slot)
        self.restarts[slot] = restarts

    def die(self, slot: str) -> None:
        """End a slot's engine for good, as after a crash loop."""
        self.activity[slot] = Activity.FAILED
        self.instances.pop(slot, None)

    def stop(self, slot: str) -> None:
        self.activity[slot] = Activity.INACTIVE
        self.instances.pop(slot, None)

    def carry_out(self, plan: Plan) -> None:
        """Do a plan's steps at once."""
        for step in plan.steps:
            match step.kind:
                case StepKind.PULL:
                    self.images[step.payload] = f"id-{step.payload}"
                case StepKind.STOP:
                    self.stop(step.slot)
                case StepKind.WRITE:
                    self.write(step.slot, step.payload)
                case StepKind.REMOVE:
                    self.remove(step.slot)
                case StepKind.RELOAD:
                    self.reload()
                case StepKind.START:
                    self.start(step.slot)

    def names(self) -> set[str]:
        return set(self.files) | set(self.loaded) | set(self.instances)

    def observe(self, slot: str, image: str) -> SlotObservation:
        text = self.files.get(slot)
        path = f"/etc/systemd/system/hal0-slot@{slot}.service.d/50-hal0.conf"
        return SlotObservation(
            definition=Known(Definition(path, text) if text is not None else None),
            service=Known(self._service(slot)),
            instance=Known(self.instances.get(slot)),
            image=Known(self.images.get(image)),
            model=Known(value=True),
        )

    def _service(self, slot: str) -> Service | None:
        if slot not in self.loaded and slot not in self.activity:
            return None
        return Service(
            activity=self.activity.get(slot, Activity.INACTIVE),
            argv=self.loaded.get(slot, ()),
            needs_reload=slot in self.stale,
            operator_dropins=self.operator_dropins.get(slot, ()),
            result="start-limit-hit" if self.activity.get(slot) is Activity.FAILED else "success",
            restarts=self.restarts.get(slot, 0),
            invocation=f"{slot}-{self.starts.get(slot, 0)}",
            memory=self.memory.get(slot),
        )


@dataclass
class FakeRuntime:
    """``Runtime`` over a ``FakeHost``. ``faults`` maps a verb to what it raises; ``blind`` hides what systemd says.

    ``hidden`` hides the definitions, ``mute`` what podman says of containers.
    """

    host: FakeHost = field(default_factory=FakeHost)
    name: str = "systemd"
    faults: dict[str, Exception] = field(default_factory=dict)
    blind: str = ""
    hidden: str = ""
    mute: str = ""
    calls: list[str] = field(default_factory=list)
    stops: asyncio.Event | None = None
    pulls: asyncio.Event | None = None
    last_lines: list[str] = field(default_factory=list)

    async def observe(
        self, images: Mapping[str, str], *, only: frozenset[str] | None = None
    ) -> dict[str, SlotObservation]:
        names = only if only is not None else set(images) | self.host.names()
        seen = {name: self.host.observe(name, images.get(name, "")) for name in names}
        if self.blind:
            unknown: Fact[Service | None] = Unknown(self.blind)
            seen = {name: replace(found, service=unknown) for name, found in seen.items()}
        if self.hidden:
            unseen: Fact[Definition | None] = Unknown(self.hidden)
            seen = {name: replace(found, definition=unseen) for name, found in seen.items()}
        if self.mute:
            untold: Fact[Instance | None] = Unknown(self.mute)
            seen = {name: replace(found, instance=untold) for name, found in seen.items()}
        return seen

    async def write(self, slot: str, text: str) -> None:
        self._call("write", slot)
        self.host.write(slot, text)

    async def remove(self, slot: str) -> None:
        self._call("remove", slot)
        self.host.remove(slot)

    async def put_aside(self, slot: str) -> None:
        self._call("put_aside", slot)
        self.host.stop(slot)
        self.host.remove(slot)

    async def reload(self) -> None:
        self._call("reload", "")
        self.host.reload()

    async def reset_failed(self, slot: str) -> None:
        self._call("reset_failed", slot)

    async def start(self, slot: str) -> None:
        self._call("start", slot)
        self.host.start(slot)

    async def stop(self, slot: str) -> None:
        self._call("stop", slot)
        if self.stops:
            await self.stops.wait()
        self.host.stop(slot)

    async def pull(self, image: str) -> None:
        self._call("pull", image)
        if self.pulls:
            await self.pulls.wait()
        self.host.images[image] = f"id-{image}"

    async def pin_of(self, image: str) -> ImagePin | None:
        self._call("pin_of", image)
        if image not in self.host.images:
            return None
        digest = self.host.digests.get(image, "")
        return ImagePin(digest=digest) if digest else ImagePin(id=sha256(self.host.images[image].encode()).hexdigest())

    async def logs(self, slot: str, *, lines: int, engine_only: bool = False) -> list[str]:
        self._check("logs", slot)
        return self.last_lines[-lines:]

    async def follow(self, slot: str) -> AsyncIterator[str]:
        self._check("follow", slot)
        for line in self.last_lines:
            yield f"{slot}: {line}"

    async def events(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "*"

    async def stop_all(self) -> None:
        self._call("stop_all", "")

    async def close(self) -> None:
        self._call("close", "")

    def _call(self, verb: str, what: str) -> None:
        self.calls.append(f"{verb} {what}".strip())
        self._check(verb, what)

    def _check(self, verb: str, what: str) -> None:
        if fault := self.faults.get(f"{verb} {what}") or self.faults.get(verb):
            raise fault


@dataclass
class FakeProber:
    """``Prober`` with the answers of a table; a slot that is not in it is up."""

    answers: dict[str, ProbeResult] = field(default_factory=dict)

    async def probe(self, targets: Sequence[tuple[str, int, str]]) -> dict[str, ProbeResult]:
        return {slot: self.answers.get(slot, ProbeResult.UP) for slot, _, _ in targets}

    async def close(self) -> None:
        return


@dataclass
class FakeFetcher:
    """``Fetcher`` of files in memory: ``size`` bytes in blocks of ``block``, each once ``go`` lets it.

    ``kept`` are the bytes of files that are under way, or were given up; ``begun`` tells the path of each try and the
    bytes that it began with. With ``lost``, nothing is there in the end. A try meets the ``faults`` of its path in
    turn, once the next block has come. ``said`` is what every source answers when it is asked for its size,
    ``versions`` are what the hub has, by the name of the file.
    """

    size: int = 100
    block: int = 100
    go: asyncio.Semaphore | None = None
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    begun: list[tuple[str, int]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    lost: bool = False
    said: int | StepFailed | None = 100
    repositories: dict[str, tuple[ListedFile, ...]] = field(default_factory=dict)
    versions: dict[str, Version | Exception] = field(default_factory=dict)
    looked: list[Source] = field(default_factory=list)

    async def look(self, source: Source) -> Version:
        self.looked.append(source)
        found = self.versions.get(source.file, Version())
        if isinstance(found, Exception):
            raise found
        return found

    async def fetch(self, source: Source, path: str, sha256: str, told: Callable[[Progress], None]) -> None:
        self.begun.append((path, self.kept.get(path, 0)))
        self.sources.append(source)
        while self.kept.get(path, 0) < self.size:
            if self.go:
                await self.go.acquire()
            self.kept[path] = min(self.size, self.kept.get(path, 0) + self.block)
            told(Progress(self.kept[path], self.size))
            if self.faults.get(path):
                raise self.faults[path].pop(0)
        content = bytes(self.kept.pop(path, 0))
        if not self.lost:
            file = Path(path) / "model.safetensors" if source.is_folder else Path(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            if source.is_folder:
                file.with_name("config.json").write_text("{}")

    async def size_of(self, source: Source) -> int | None:
        if isinstance(self.said, StepFailed):
            raise self.said
        return self.said

    async def listing(self, source: Source) -> tuple[ListedFile, ...]:
        return self.repositories[source.repo]


GOOD = Reply(200)
SILENT = Reply(0, "no answer in 45 s")


@dataclass
class FakeCompleter:
    """``Completer`` that answers ``first`` in turn, then ``reply`` to all, but for the ports in ``replies``.

    With ``hold`` it answers once that is set. ``asked`` are the ports, ``deadlines`` how long each had.
    """

    reply: Reply = GOOD
    replies: dict[int, Reply] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    first: list[Reply] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)

    async def complete(self, port: int, ask: Ask) -> Reply:
        self.asked.append(port)
        self.deadlines.append(ask.deadline)
        if self.hold:
            await self.hold.wait()
        return self.first.pop(0) if self.first else self.replies.get(port, self.reply)


NO_GPU = Sample(Known(Memory(8 * 2**30, 6 * 2**30, 0)), Known(Pool("ram", 8 * 2**30, 2 * 2**30, stated=False)))
FAKE_CPU = Cpu("Fake CPU", "x86_64", 2, 2, 2, ("avx2",))


@dataclass
class FakeHardware:
    """``Hardware`` with the pools of a table; ``asked`` keeps of each time whether a fresh answer was wanted.

    It has two CPUs, 8 GiB of memory and no GPU, unless ``last`` and ``platform`` say otherwise.
    """

    table: dict[str, Fact[Pool]] = field(default_factory=dict)
    asked: list[bool] = field(default_factory=list)
    last: Sample = NO_GPU
    platform: Fact[Platform] = field(default_factory=lambda: Known(Platform(FAKE_CPU)))

    async def pools(self, *, fresh: bool = False) -> Mapping[str, Fact[Pool]]:
        self.asked.append(fresh)
        return dict(self.table)

    async def machine(self, models: str) -> Machine:
        return Machine(self.platform, self.last, await self.disk(models))

    async def disk(self, folder: str) -> Fact[Disk]:
        return Known(Disk(folder, "ext4", 100 * 2**30, 40 * 2**30))


@dataclass
class FakeClock:
    """``Clock`` that stands still until it is told."""

    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return 1_700_000_000.0 + self.time

    def forward(self, seconds: float) -> None:
        self.time += seconds


UNREACHABLE = HostUnreachable("D-Bus is gone")
