"""``hal0 chat``: a conversation in the terminal, over the daemon's own /v1. A pipe on stdin is one turn."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from hal0.cli import client, show
from hal0.cli.options import Options
from hal0.cli.stream import Answer, Summary
from hal0.errors import Hal0Error, HostUnreachable, UsageError

_PATH = "/v1/chat/completions"
_UP = ("serving", "ready", "idle")
_HELP = """  /reset         forget what was said
  /model NAME    go on with another slot or model
  /exit          leave (Ctrl-D does, too)
Ctrl-C ends an answer, and the engine's work on it."""
_THOUGHT = "90"


@dataclass
class Conversation:
    """What was said, and with whom. ``system`` is said first, where there is such a text."""

    scope: str | None
    model: str
    system: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget what was said."""
        self.messages.clear()

    def ask(self, text: str) -> Summary:
        """Say something, print the answer as it comes, and return how it went. What fails is as if never said.

        An interrupt cuts the connection, by which the engine's work ends; what was answered until then is kept. A
        question without a word of an answer is as if never asked.
        """
        messages = [*self._opening(), *self.messages, _said("user", text)]
        body = {"model": self.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        answer, events = Answer(monotonic()), client.lines(self.scope, "POST", _PATH, body)
        with contextlib.closing(events):
            try:
                for line in events:
                    _print(*answer.take(line, monotonic()))
            except KeyboardInterrupt:
                self._keep(text, answer)
                show.say([] if answer.text else [""])  # the terminal shows ^C
                raise
            finally:
                show.say([""] if answer.text else [])
        self._keep(text, answer)
        return answer.summary(monotonic())

    def _keep(self, text: str, answer: Answer) -> None:
        if answer.text:
            self.messages += [_said("user", text), _said("assistant", answer.text)]

    def _opening(self) -> list[dict[str, str]]:
        return [_said("system", self.system)] if self.system else []


def chat(options: Options, slot: str | None, *, system: str) -> int:
    """Talk with a slot: turn by turn on a terminal, else one turn of what comes by stdin."""
    if not client.is_running(options.scope):
        hint = "start one with `hal0 install`, or `hal0 serve`"
        raise HostUnreachable(f"no daemon answers at {client.socket_path(options.scope)}", hint=hint)
    slots = client.get(options.scope, "/api/slots")["slots"]
    talk = Conversation(options.scope, slot or _choice(slots), system)
    if not sys.stdin.isatty():
        return _once(talk)
    show.say([_told(talk.model, _slot_of(talk.model, slots)) + ". /help says what else there is."])
    _converse(talk)
    return 0


def _once(talk: Conversation) -> int:
    """Answer what comes by stdin; only the answer goes to stdout."""
    if not (text := sys.stdin.read().strip()):
        raise UsageError("stdin holds nothing to say", hint="echo 'Say hello.' | hal0 chat")
    _aside(f"({_asked(talk, text)})")
    return 0


def _converse(talk: Conversation) -> None:
    """Take turns until somebody leaves. An error ends a turn, and not the conversation."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() then has a history, and can be edited)
    while (line := _typed()) is not None:
        word, _, rest = line.partition(" ")
        if word in {"/exit", "/quit"}:
            return
        if word.startswith("/"):
            _command(talk, word, rest.strip())
        elif line:
            _turn(talk, line)


def _typed() -> str | None:
    """Return what was typed, None at the end. Ctrl-C takes back the line."""
    try:
        return input("> ").strip()
    except EOFError:
        show.say([""])
        return None
    except KeyboardInterrupt:
        show.say(["", "/exit or Ctrl-D leaves"])
        return ""


def _command(talk: Conversation, word: str, rest: str) -> None:
    if word == "/reset":
        talk.reset()
        _aside("forgotten")
    elif word == "/model" and rest:
        _go_on_with(talk, rest)
    else:
        show.say([_HELP])


def _go_on_with(talk: Conversation, model: str) -> None:
    """Change the model, unless nobody has it. What an upstream might have is found out by the next message."""
    route = client.get(talk.scope, "/api/route?" + urlencode({"model": model, "path": _PATH}))
    if route.get("code") and not route["ask_first"]:
        _aside(f"{model}: {route['reason']}; still with {talk.model}")
        return
    talk.model = model
    show.say([_told(model, _slot_now(talk))])


def _turn(talk: Conversation, text: str) -> None:
    try:
        if (slot := _slot_now(talk)) and slot["state"] not in _UP:
            why = slot["message"] or "it answers when it is up"
            _aside(f"({slot['name']} is {slot['state']}: {why}; Ctrl-C gives up)")
        _aside(f"({_asked(talk, text)})")
    except KeyboardInterrupt:
        _aside("(ended)")
    except Hal0Error as error:
        show.say([show.paint(f"error: {error}", "31")])
        if error.hint:
            show.hint(error.hint)


def _asked(talk: Conversation, text: str) -> Summary:
    """Say something; an error comes with what to do about a slot that is not up."""
    try:
        return talk.ask(text)
    except Hal0Error as error:
        with contextlib.suppress(Hal0Error):
            if not error.hint and (slot := _slot_now(talk)) and slot["state"] not in _UP:
                error.hint = f"`hal0 why {slot['name']}` says why it is {slot['state']}"
                error.hint += f", `hal0 slot load {slot['name']}` brings it up" * (slot["state"] == "offline")
        raise


def _print(text: str, thought: str) -> None:
    """Print a piece of an answer as it comes; what a model thinks before it is for a terminal only."""
    if thought and sys.stdout.isatty():
        sys.stdout.write(show.paint(thought, _THOUGHT))
    sys.stdout.write(text)
    sys.stdout.flush()


def _choice(slots: list[dict[str, Any]]) -> str:
    """Return the slot to talk with where none is named: one that is up, else the first that can talk."""
    able = [slot for slot in slots if slot["type"] == "llm"]
    if not able:
        raise UsageError("there is no slot of type llm", hint="name a model, as `hal0 chat cloud/some-model`")
    return next((slot["name"] for slot in able if slot["state"] in _UP), str(able[0]["name"]))


def _slot_now(talk: Conversation) -> dict[str, Any] | None:
    """Return the slot that is talked with, as it is now; None where that is none, but a model of an upstream."""
    return _slot_of(talk.model, client.get(talk.scope, "/api/slots")["slots"])


def _slot_of(model: str, slots: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((slot for slot in slots if model in {slot["name"], *slot["aliases"]}), None)


def _told(model: str, slot: dict[str, Any] | None) -> str:
    """Return who is talked with, and whether that one is up."""
    if slot is None:
        return show.paint(model, "1")
    waits = "" if slot["state"] in _UP else f": {slot['message'] or 'the next message waits for it'}"
    return show.paint(model, "1") + f" ({slot['model']}, {slot['state']}{waits})"


def _aside(text: str) -> None:
    """Say what is not the answer: on stderr, so that a pipe has the answer alone."""
    sys.stderr.write((show.paint(text, _THOUGHT) if sys.stderr.isatty() else text) + "\n")


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}
