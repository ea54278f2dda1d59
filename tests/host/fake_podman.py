"""A podman service that answers with recorded shapes of 4.3 and 5.x."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

BASE = "/v4.0.0/libpod"
IMAGE = "59b28502e8120fd94dbbcb44b964a5e04ba85a4f0ef68149b1d14269e3a686a5"
DIGEST = "sha256:da48a8f2f3d636651102ceeb5764fb6b42d0f1a3efb06fb31cfb2055afe35d13"


def row_4(name: str, state: str = "running", **labels: str) -> dict[str, Any]:
    """Return a container as podman 4.3 lists it."""
    shape = '{"AutoRemove": false, "Command": ["/x"], "Mounts": [], "Namespaces": {}, "Ports": null, "Pid": 0}'
    more = {"Id": f"id-of-{name}", "Names": [name], "State": state, "Labels": labels or None}
    return {**json.loads(shape), **more, "Image": "localhost/tiny:1", "ImageID": IMAGE}


def row_5(name: str, state: str = "running", **labels: str) -> dict[str, Any]:
    """Return a container as podman 5.x lists it, with what it has more than 4.3."""
    more = {"CIDFile": "", "ExposedPorts": None, "Restarts": 0, "CreatedAt": "", "Labels": labels}
    return {**row_4(name, state), **more, "ImageID": f"sha256:{IMAGE}"}


def inspected(command: list[str]) -> dict[str, Any]:
    """Return what of an inspected container is read."""
    return {"State": {"Running": True}, "Config": {"CreateCommand": command, "Labels": {}}}


class FakePodman:
    """Serves lists and inspections from attributes; ``asked`` holds the paths that were asked for.

    ``broken`` holds paths that answer 500. ``pulled`` is what a pull says, ``None`` to say nothing and wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.containers: list[dict[str, Any]] = []
        self.inspections: dict[str, dict[str, Any]] = {}
        self.images: list[dict[str, Any]] = []
        self.aliases: dict[str, str] = {}
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.pulled: list[dict[str, Any]] | None = []
        self.pull_status = 200
        self.pulls: asyncio.Queue[str] = asyncio.Queue()
        self.hung_up = asyncio.Event()
        self.streams: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self) -> None:
        self._server = await asyncio.start_unix_server(self._talk, self.path)

    async def close(self) -> None:
        """End the service and all its connections, and take the socket away."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.close()
            await self._server.wait_closed()
            self._server = None
        self.path.unlink(missing_ok=True)

    def image(self, *tags: str) -> None:
        digests = [f"{tag.rpartition(':')[0]}@{DIGEST}" for tag in tags]
        self.images.append({"Id": IMAGE, "RepoTags": list(tags), "RepoDigests": digests, "Size": 1})

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = head.split(" ", 2)[1]
        url = urlsplit(target)
        path = unquote(url.path).removeprefix(BASE)
        self.asked.append(path)
        if path == "/events":
            writer.write(_head(200, chunked=True))
            self.streams.put_nowait(writer)
            return
        if path == "/images/pull":
            self.pulls.put_nowait(parse_qs(url.query)["reference"][0])
            await self._pull(reader, writer)
        else:
            status, body = self._answer(path)
            writer.write(_head(status) + json.dumps(body).encode())
        self._writers.discard(writer)
        writer.close()

    async def _pull(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(self.pull_status, chunked=True))
        if self.pulled is None:
            await reader.read()
            self.hung_up.set()
            return
        for line in self.pulled:
            writer.write(chunk(line))
        writer.write(b"0\r\n\r\n")

    def _images(self) -> dict[str, dict[str, Any]]:
        """Return what an inspection says of each image, by every name that podman resolves."""
        told = {tag: image | {"Digest": image.get("Digest", "")} for image in self.images for tag in image["RepoTags"]}
        return told | {ref: told.get(ref, {"Id": i}) for ref, i in self.aliases.items()}

    def _answer(self, path: str) -> tuple[int, Any]:
        if path in self.broken:
            return 500, {"cause": "storage is wedged", "message": "storage is wedged", "response": 500}
        found = {"/containers/json": self.containers, "/images/json": self.images}.get(path)
        if found is not None:
            return 200, found
        _, kind, *name, _ = path.split("/")
        known = self.inspections if kind == "containers" else self._images()
        if (thing := known.get("/".join(name))) is not None:
            return 200, thing
        return 404, {"cause": f"no such {kind}", "message": "not found", "response": 404}


def chunk(event: dict[str, Any]) -> bytes:
    """Return one JSON line as an HTTP chunk."""
    line = json.dumps(event).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


def event(kind: str, action: str, **attributes: str) -> dict[str, Any]:
    """Return an event as podman sends it."""
    return {"Type": kind, "Action": action, "Actor": {"ID": "x", "Attributes": attributes}, "scope": "local"}


def _head(status: int, *, chunked: bool = False) -> bytes:
    coding = "Transfer-Encoding: chunked\r\n" if chunked else ""
    return f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n{coding}\r\n".encode()
