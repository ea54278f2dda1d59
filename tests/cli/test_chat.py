"""A conversation in the terminal: over a stream that a test writes, and over a real daemon with a tiny engine."""

from __future__ import annotations

import builtins
import json
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.cli import chat, client
from hal0.cli.client import DaemonError
from hal0.cli.options import Options
from hal0.cli.stream import Answer

from .conftest import DEADLINE, Place


def event(text: str | None = None, **more: object) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}], **more})


# One answer.


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))))
def test_an_answer_is_the_sum_of_its_pieces(pieces: list[str]) -> None:
    answer = Answer(0.0)
    taken = [answer.take(event(piece), 1.0) for piece in pieces]
    assert taken == [(piece, "") for piece in pieces]
    assert answer.text == "".join(pieces)


def test_what_would_steer_the_terminal_is_left_out() -> None:
    assert Answer(0.0).take(event("a\x1b[2Jb\x07\n\tc\x9b"), 1.0) == ("a[2Jb\n\tc", "")


@pytest.mark.parametrize(
    "line", ["", ": ping", "event: x", "data: [DONE]", 'data: {"choices": []}', 'data: {"usage": {}}']
)
def test_lines_without_a_piece_add_nothing(line: str) -> None:
    assert Answer(0.0).take(line, 1.0) == ("", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('data: {"error": {"message": "the engine broke off"}}', "the engine broke off"),
        ('data: {"error": "no"}', "no"),
        ("data: {", "the stream holds what is no event: '{'"),
        ("data: []", "the stream holds what is no event: '[]'"),
    ],
)
def test_an_error_in_the_stream_is_raised_with_its_words(line: str, message: str) -> None:
    with pytest.raises(DaemonError, match=message.replace("[", r"\[")):
        Answer(0.0).take(line, 1.0)


def test_the_engines_own_figures_go_before_the_clocks() -> None:
    answer = Answer(10.0)
    answer.take(event("a"), 10.5)
    answer.take(event(usage={"completion_tokens": 20}), 12.5)
    assert str(answer.summary(12.5)) == "20 tokens, 10.0 tokens/s, the first after 0.50 s, 2.5 s in all"
    answer.take(event(timings={"predicted_n": 20, "predicted_per_second": 40.0}), 12.5)
    assert "40.0 tokens/s" in str(answer.summary(12.5))


def test_an_answer_of_nothing_says_so() -> None:
    assert str(Answer(10.0).summary(11.0)) == "no answer, 1.0 s in all"


# A conversation.


@dataclass
class Daemon:
    """Answers with what it is told to, piece by piece; an exception among the pieces is raised there."""

    answers: list[list[str | BaseException]] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    cut: int = 0
    slots: list[dict[str, Any]] = field(default_factory=list)
    unknown: str = ""

    def get(self, _: str | None, path: str) -> Any:
        if path == "/api/slots":
            return {"slots": self.slots}
        is_unknown = bool(self.unknown) and self.unknown in path
        return {"code": "model.not_found" * is_unknown, "ask_first": [], "reason": "nobody has it"}

    def lines(self, _: str | None, method: str, path: str, body: Any) -> Generator[str]:
        assert (method, path, body["stream"]) == ("POST", "/v1/chat/completions", True)
        self.asked.append((body["model"], [(each["role"], each["content"]) for each in body["messages"]]))
        pieces = self.answers.pop(0)
        try:
            for piece in pieces:
                if isinstance(piece, BaseException):
                    raise piece
                yield event(piece)
        finally:
            self.cut += 1


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    made = Daemon()
    plain: dict[str, Any] = {"aliases": [], "message": ""}
    made.slots = [
        {"name": "embed", "type": "embedding", "state": "ready", "model": "e", **plain},
        {"name": "big", "type": "llm", "state": "offline", "model": "b", **plain},
        {"name": "chat", "type": "llm", "state": "ready", "model": "m", **plain},
    ]
    monkeypatch.setattr(client, "lines", made.lines)
    monkeypatch.setattr(client, "is_running", lambda _: True)
    monkeypatch.setattr(client, "get", made.get)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return made


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have lines typed, and then the end of the input; an exception is raised at the prompt."""

    def type_(*typed: str | BaseException) -> None:
        lines: Iterator[str | BaseException] = iter([*typed, EOFError()])

        def typed_line(_: str) -> str:
            line = next(lines)
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", typed_line)

    return type_


def test_turns_carry_what_was_said_before(daemon: Daemon, types: Any, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers = [["Hel", "lo."], ["Yes."]]
    types("hi", "", "sure?")
    assert chat.chat(Options(), None, system="Be short.") == 0
    system = ("system", "Be short.")
    assert daemon.asked[0] == ("chat", [system, ("user", "hi")])
    assert daemon.asked[1] == ("chat", [system, ("user", "hi"), ("assistant", "Hello."), ("user", "sure?")])
    assert "Hello.\nYes.\n" in capsys.readouterr().out


def test_an_interrupt_cuts_the_answer_keeps_what_came_and_goes_on(daemon: Daemon, types: Any) -> None:
    daemon.answers = [["Once ", KeyboardInterrupt()], ["ok"]]
    types("tell", KeyboardInterrupt(), "stop")
    assert chat.chat(Options(), None, system="") == 0
    assert daemon.cut == 2
    assert daemon.asked[1][1] == [("user", "tell"), ("assistant", "Once "), ("user", "stop")]


def test_an_interrupt_before_the_first_word_is_as_if_never_asked(daemon: Daemon, types: Any) -> None:
    daemon.answers = [[KeyboardInterrupt()], ["ok"]]
    types("tell", "hi")
    assert chat.chat(Options(), None, system="") == 0
    assert daemon.asked[1][1] == [("user", "hi")]


def test_a_slot_that_is_not_up_is_told_before_and_after(
    daemon: Daemon, types: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.slots[1]["message"] = "unloaded by root"
    daemon.answers = [[DaemonError("it is not to be")]]
    types("hi")
    assert chat.chat(Options(), "big", system="") == 0
    told = capsys.readouterr()
    assert told.out.startswith("big (b, offline: unloaded by root)")
    assert "(big is offline: unloaded by root; Ctrl-C gives up)" in told.err
    assert "hint: `hal0 why big` says why it is offline, `hal0 slot load big` brings it up\n" in told.err


def test_a_model_that_nobody_has_is_refused_and_the_talk_goes_on(
    daemon: Daemon, types: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers, daemon.unknown = [["ok"]], "nope"
    types("/model nope", "hi")
    assert chat.chat(Options(), None, system="") == 0
    assert daemon.asked[0][0] == "chat"
    assert "nope: nobody has it; still with chat\n" in capsys.readouterr().err


def test_a_turn_that_fails_is_told_and_is_as_if_never_said(
    daemon: Daemon, types: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers = [["On", DaemonError("it broke off", hint="try again")], ["ok"]]
    types("one", "two")
    assert chat.chat(Options(), None, system="") == 0
    assert daemon.asked[1][1] == [("user", "two")]
    told = capsys.readouterr()
    assert "On\nerror: it broke off\n" in told.out
    assert "hint: try again" in told.err


def test_reset_model_and_exit_are_commands(daemon: Daemon, types: Any, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers = [["a"], ["b"]]
    types("one", "/reset", "/model cloud/x", "two", "/what", "/exit", "three")
    assert chat.chat(Options(), "big", system="") == 0
    assert daemon.asked == [("big", [("user", "one")]), ("cloud/x", [("user", "two")])]
    told = capsys.readouterr().out
    assert told.startswith("big (b, offline: the next message waits for it)")
    assert "/reset" in told


# As a process.


def test_without_a_daemon_it_says_how_to_get_one(place: Place) -> None:
    done = place.hal0("chat")
    assert done.returncode == 4
    assert "no daemon answers at" in done.stderr
    assert "hint: start one with `hal0 install`, or `hal0 serve`" in done.stderr


TALKER = """
import http.server, json, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            self.piece("You said: " + said)
            while said == "for ever":
                self.piece(".")
                time.sleep(0.01)
        except OSError:
            print("cut", flush=True)

    def piece(self, text):
        event = {"choices": [{"delta": {"content": text}}]}
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def talking(place: Place) -> Place:
    (place.folder / "engine.py").write_text(TALKER)
    place.put_slots("chat")
    return place


def chatting(place: Place) -> subprocess.Popen[str]:
    argv, pipe = [sys.executable, "-m", "hal0.cli", "chat"], subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=place.env, cwd=place.folder, text=True)


@pytest.mark.daemon
def test_a_pipe_is_one_turn_whose_answer_alone_is_on_stdout(talking: Place) -> None:
    with talking.serving():
        talking.until_ready("chat")
        with chatting(talking) as process:
            out, err = process.communicate("hello\n", DEADLINE)
    assert (process.returncode, out) == (0, "You said: hello\n")
    assert err.startswith("(the first after ")


@pytest.mark.daemon
def test_an_interrupted_answer_ends_the_engines_work(talking: Place) -> None:
    log = talking.folder / "state" / "logs" / "chat.log"
    with talking.serving():
        talking.until_ready("chat")
        with chatting(talking) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("for ever")
            process.stdin.close()
            assert process.stdout.read(1) == "Y"
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
        talking.until(lambda: "cut" in Path(log).read_text())
