"""A streamed answer of /v1/chat/completions: its text, and how fast it came."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hal0.cli.client import DaemonError

_DATA = "data:"
_DONE = "[DONE]"
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""What a model must not send to a terminal: it may mean the terminal itself."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How an answer went. Times are seconds; what is not known is None."""

    tokens: int | None
    seconds: float
    first: float | None
    rate: float | None

    def __str__(self) -> str:
        """``42 tokens, 31.5 tokens/s, the first after 0.21 s, 1.5 s in all``."""
        parts = [f"{self.tokens} tokens" if self.tokens is not None else ""]
        parts += [f"{self.rate:.1f} tokens/s" if self.rate else ""]
        parts += [f"the first after {self.first:.2f} s" if self.first is not None else "no answer"]
        return ", ".join(filter(None, [*parts, f"{self.seconds:.1f} s in all"]))


@dataclass
class Answer:
    """What came so far. ``began`` and every other time is monotonic seconds."""

    began: float
    text: str = ""
    _first: float | None = None
    _last: dict[str, Any] = field(default_factory=dict)

    def take(self, line: str, now: float) -> tuple[str, str]:
        """Take one line of the stream, and return what it adds: to the answer, and to the thoughts before it.

        Raises ``DaemonError`` for an error in the stream, and for what is no event.
        """
        data = line.removeprefix(_DATA).strip()
        if not line.startswith(_DATA) or data == _DONE:
            return "", ""
        event = _event(data)
        self._last |= {key: event[key] for key in ("usage", "timings") if event.get(key)}
        delta = (event.get("choices") or [{}])[0].get("delta") or {}
        text, thought = (_plain(delta.get(key)) for key in ("content", "reasoning_content"))
        if (text or thought) and self._first is None:
            self._first = now
        self.text += text
        return text, thought

    def summary(self, now: float) -> Summary:
        """Return how it went: by the engine's own figures where it gives some, else by the clock."""
        usage, timings = self._last.get("usage") or {}, self._last.get("timings") or {}
        tokens = usage.get("completion_tokens", timings.get("predicted_n"))
        rate = timings.get("predicted_per_second")
        if rate is None and tokens and self._first is not None and now > self._first:
            rate = tokens / (now - self._first)
        first = None if self._first is None else self._first - self.began
        return Summary(tokens, now - self.began, first, rate)


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise DaemonError(f"the stream holds what is no event: {data[:80]!r}")
    if error := event.get("error"):
        raise DaemonError(str(error.get("message", error) if isinstance(error, dict) else error))
    return event


def _plain(text: object) -> str:
    return text.translate(_CONTROLS) if isinstance(text, str) else ""
