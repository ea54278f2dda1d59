"""What a request asks for, read from its body as far as is needed: the model, and what is to be changed on the way."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hal0.core.endpoints import Endpoint
from hal0.core.quantity import parse_duration
from hal0.core.spec import SlotSpec
from hal0.dispatch.body import KEEP_ALIVE, Body, parse
from hal0.dispatch.call import BodyTooLarge, Call
from hal0.dispatch.envelope import Refusal
from hal0.dispatch.multipart import Form, boundary_of

_PEEK = 256 * 1024
"""Bytes of a form that are looked through for its model; one behind a larger file is not seen."""
_WAIT = re.compile(rb"(?:^|[,;\s])wait=(\d{1,9})(?:$|[,;\s])")
_LONGEST_DURATION = 32


@dataclass
class Asked:
    """One request: JSON that is all there, or a form whose rest is still to come. Neither: a request without a body."""

    call: Call
    endpoint: Endpoint
    model: str | None = None
    limit: int = 0
    """The largest body that is taken, in bytes."""
    body: Body | None = None
    form: Form | None = None
    head: bytes = b""
    """The form's first bytes, as far as it was read."""
    is_spent: bool = False
    """Whether it can't be sent once more: its body has gone through, or its answer has begun."""

    @property
    def wait(self) -> float | None:
        """How many seconds the client says that it would wait (``Prefer: wait=N``)."""
        found = _WAIT.search(self.call.header(b"prefer"))
        return float(found[1]) if found else None

    def keep(self, spec: SlotSpec) -> float | None:
        """Return for how long the client wants the slot kept, capped by its manifest; None where it does not say."""
        said = self.body.keep_alive if self.body else None
        if said is None:
            return None
        cap = spec.idle_timeout if spec.serving.max_keep_alive is None else spec.serving.max_keep_alive
        return min(cap, _seconds(said, cap))

    def json_for(self, model: str, spec: SlotSpec | None) -> bytes:
        """Return the JSON as a slot or an upstream is to get it."""
        return json_for(self.body, model, spec) if self.body else b""

    async def form_for(self, model: str) -> AsyncIterator[bytes]:
        """Yield the form as a slot or an upstream is to get it, as it comes from the client. Once only."""
        if self.form is not None:
            self.is_spent = True
            yield self._head_with(model)
            left = self.limit - len(self.head)
            async for piece in self.call.parts():
                left -= len(piece)
                if left < 0:
                    raise _too_large(self.call, self.limit)
                yield piece

    def form_length(self, model: str) -> int | None:
        """Return the form's length with that model; None where the client did not say how long it is."""
        said = self.call.header(b"content-length")
        if not said or self.form is None:
            return None
        return int(said) + len(self._head_with(model)) - len(self.head)

    def _head_with(self, model: str) -> bytes:
        return self.form.renamed(self.head, model) if self.form else self.head


def json_for(body: Body, model: str, spec: SlotSpec | None) -> bytes:
    """Return a body as a slot is to get it; ``spec`` None: as an upstream is. Raises ``Refusal``."""
    try:
        if spec is None:
            return body.edited(model=model, defaults={}, strip=(KEEP_ALIVE,), set_={})
        strip = (KEEP_ALIVE, *spec.serving.strip)
        return body.edited(model=model, defaults=spec.defaults, strip=strip, set_=spec.serving.set)
    except ValueError as error:
        raise _invalid("request.invalid_json", "JSON", error) from None


async def read(call: Call, endpoint: Endpoint, limit: int) -> Asked:
    """Read as much of a request as a decision needs. Raises ``Refusal`` for what is none."""
    asked = Asked(call, endpoint, limit=limit)
    code, what = "request.invalid_json", "JSON"
    try:
        if endpoint.is_form and not call.header(b"content-type").startswith(b"application/json"):
            code, what = "request.invalid_form", "a form"
            asked.form, asked.head = await _peek(call, limit)
            asked.model = asked.form.model or None
        else:
            asked.body = parse(await call.read(limit))
            asked.model = asked.body.model
    except BodyTooLarge:
        raise _too_large(call, limit) from None
    except ValueError as error:
        raise _invalid(code, what, error) from None
    return asked


def _invalid(code: str, what: str, error: ValueError) -> Refusal:
    return Refusal(400, code, f"the body is not {what}: {error}")


def _too_large(call: Call, limit: int) -> Refusal:
    call.keeps = False
    return Refusal(
        413, "request.too_large", f"the body is larger than {limit} bytes: see max_body in the Host manifest"
    )


async def _peek(call: Call, limit: int) -> tuple[Form, bytes]:
    """Read a form as far as its model, or as far as it is worth looking; return it and the bytes that were read."""
    call.check_length(limit)
    boundary = boundary_of(call.header(b"content-type").decode("latin-1"))
    if boundary is None:
        raise ValueError("it is no multipart/form-data with a boundary")
    form, head = Form(boundary), bytearray()
    async for piece in call.parts():
        head += piece
        form.look(head)
        if form.model is not None or form.has_ended or len(head) > _PEEK:
            break
    return form, bytes(head)


def _seconds(said: object, cap: float) -> float:
    """Return a ``keep_alive`` as seconds, as users of Ollama write it: a number, a duration, less than 0 for ever."""
    text = said.strip() if isinstance(said, str) else ""
    is_number = isinstance(said, int | float) and not isinstance(said, bool)
    if text.startswith("-") or (is_number and not 0 <= said <= cap):  # type: ignore[operator]
        return cap
    try:
        if text.isdecimal():
            return float(text[:_LONGEST_DURATION])
        if len(text) > _LONGEST_DURATION:
            raise ValueError("is not a duration: write it like 90s, 15m or 1h30m")  # noqa: TRY301
        return parse_duration(said)
    except ValueError as error:
        raise Refusal(400, "request.invalid_keep_alive", f"keep_alive {error}", param=KEEP_ALIVE) from None
