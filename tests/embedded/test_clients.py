"""Real clients against real engines: the official OpenAI and Anthropic packages, and plain HTTP."""

from __future__ import annotations

import array
import asyncio
import base64
import http.client
import json
import os
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from embedded.daemon import Daemon, Reply, fetch_from, free_port, serving
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.embedded
KEYS = ("key-of-one", "key-of-another")
BEARER = {"Authorization": f"Bearer {KEYS[0]}"}
MESSAGES: Any = [{"role": "user", "content": "Say hello."}]
CHAT = "/v1/chat/completions"
BEGUN, CANCELLED = "processing task", "cancel task"
LONG = 1000
CROWD = 1000
DESCRIPTORS = 4 * CROWD
MANIFESTS = """
kind: Host
listen: 127.0.0.1:{listen}
api_keys: {{file: {keys}}}
---
kind: Model
name: smollm2
path: {model}
---
kind: Slot
name: chat
model: smollm2
port: {chat}
context_size: 1024
aliases: [gpt-4o]
---
kind: Slot
name: embed
type: embedding
model: smollm2
port: {embed}
context_size: 512
args: [--pooling, mean]
---
kind: Slot
name: rerank
type: reranking
model: smollm2
port: {rerank}
context_size: 512
---
# Eight at a time: a thousand connections are a thousand threads of llama-server, and each request waits for all.
kind: Slot
name: wake
model: smollm2
run: on-demand
port: {wake}
context_size: 512
queue: {queue}
concurrency: 8
"""


@pytest.fixture(scope="module")
def descriptors() -> Iterator[int]:
    """How many files this process and its children may have open: as many as the machine lets them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = before[0] if before[1] < DESCRIPTORS else max(before[0], DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    yield soft
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, model_path: Path, descriptors: int) -> Iterator[Daemon]:  # noqa: ARG001
    """Slots for chat, embeddings and reranking that are ready, and one on demand; manifests in git; keys."""
    folder = tmp_path_factory.mktemp("clients")
    made = Daemon(folder, model_path, free_port())
    ports = {name: free_port() for name in ("chat", "embed", "rerank", "wake")}
    keys = folder / "keys"
    keys.write_text("\n".join(KEYS) + "\n")
    made.manifests.mkdir()
    text = MANIFESTS.format(listen=made.port, keys=keys, model=model_path, queue=CROWD, **ports)
    (made.manifests / "all.yaml").write_text(text)
    if shutil.which("git"):
        git(made, "init", "--quiet")
        git(made, "add", "all.yaml")
        git(made, "commit", "--quiet", "--message=all")
    with serving(made):
        for name in ("chat", "embed", "rerank"):
            made.until_ready(name)
        yield made


def git(daemon: Daemon, *words: str) -> str:
    """Run git on the manifests, whatever this machine's settings are."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    alone = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *identity, *words], cwd=daemon.manifests, env=alone, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def ask(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key=KEYS[0], max_retries=0) as client:
        yield client


@pytest.fixture
def claude(daemon: Daemon) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=daemon.url, api_key=KEYS[1], max_retries=0) as client:
        yield client


def engine_port(daemon: Daemon, slot: str = "chat") -> int:
    port: int = daemon.slot(slot)["port"]
    return port


def counted(text: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


def measured(daemon: Daemon, name: str, **labels: str) -> float:
    """Return one of hal0's metrics."""
    return counted(daemon.fetch("/metrics").body.decode(), name, **labels)


def engine_measured(daemon: Daemon, name: str) -> float:
    """Return one of the chat engine's own metrics."""
    return counted(fetch_from(engine_port(daemon), "/metrics").body.decode(), f"llamacpp:{name}")


def post(daemon: Daemon, path: str, body: object, **headers: str) -> Reply:
    return daemon.fetch(path, body, {**BEARER, **headers})


# The OpenAI client.


def test_models_are_listed_and_told_one_by_one(ask: openai.OpenAI) -> None:
    assert [model.id for model in ask.models.list()] == ["chat", "embed", "rerank", "wake", "smollm2"]
    assert ask.models.retrieve("gpt-4o").owned_by == "hal0"
    with pytest.raises(openai.NotFoundError) as caught:
        ask.models.retrieve("nothing")
    assert caught.value.code == "model.not_found"


def test_a_streamed_chat_says_what_a_whole_one_says(ask: openai.OpenAI) -> None:
    asked: Any = {"model": "chat", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    whole = ask.chat.completions.create(**asked).choices[0]
    stream = list(ask.chat.completions.create(**asked, stream=True))
    assert whole.message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole.message.content
    assert stream[-1].choices[0].finish_reason == whole.finish_reason == "length"
    assert len(stream) > 2


def test_a_stream_ends_with_its_usage_where_that_is_asked_for(ask: openai.OpenAI) -> None:
    asked: Any = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 8, "stream": True}
    *_, last = ask.chat.completions.create(**asked, stream_options={"include_usage": True})
    assert not last.choices
    assert last.usage
    assert last.usage.completion_tokens == 8


def test_a_completion(ask: openai.OpenAI) -> None:
    found = ask.completions.create(model="smollm2", prompt="One, two,", max_tokens=4, temperature=0)
    assert "three" in found.choices[0].text


def test_a_schema_constrains_the_answer(ask: openai.OpenAI) -> None:
    schema: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    shape: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    found = ask.chat.completions.create(
        model="chat", messages=MESSAGES, max_tokens=60, temperature=0, response_format=shape
    )
    assert found.choices[0].message.content
    assert isinstance(json.loads(found.choices[0].message.content)["n"], int)


@pytest.mark.parametrize(
    ("given", "count"),
    [("Say hello.", 1), (["Say hello.", "One, two"], 2), ([1, 2, 3], 1), ([[1, 2, 3], [4, 5]], 2)],
    ids=["text", "texts", "tokens", "lists of tokens"],
)
def test_embeddings_are_the_same_as_numbers_and_packed(ask: openai.OpenAI, given: Any, count: int) -> None:
    numbers = ask.embeddings.create(model="embed", input=given, encoding_format="float").data
    packed: Any = ask.embeddings.create(model="embed", input=given, encoding_format="base64").data
    unpacked = [array.array("f", base64.b64decode(each.embedding)).tolist() for each in packed]
    assert [len(vector) for vector in unpacked] == [576] * count
    for vector, same in zip(unpacked, numbers, strict=True):
        assert vector == pytest.approx(same.embedding, abs=1e-3)


def test_an_embedding_of_any_name_comes_from_the_embedding_slot(daemon: Daemon, ask: openai.OpenAI) -> None:
    tokens = post(daemon, "/v1/tokenize", {"model": "chat", "content": "Say hello."}).json["tokens"]
    of_text, of_tokens = (
        ask.embeddings.create(model="text-embedding-3-small", input=given).data[0].embedding
        for given in ("Say hello.", tokens)
    )
    assert of_text == pytest.approx(of_tokens, abs=1e-3)


def test_a_response_is_answered_whole_and_streamed(ask: openai.OpenAI) -> None:
    asked: Any = {"model": "chat", "input": "Say hello.", "max_output_tokens": 8, "temperature": 0}
    whole = ask.responses.create(**asked)
    events = list(ask.responses.create(**asked, stream=True))
    parts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert whole.output_text
    assert "".join(parts) == whole.output_text
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


def test_an_unknown_model_is_the_clients_not_found_error(ask: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'caht'; did you mean 'chat'") as caught:
        ask.chat.completions.create(model="caht", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model.not_found", "model")


def test_an_error_of_the_engine_reaches_the_client_as_the_engine_said_it(daemon: Daemon, ask: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        ask.completions.create(model="chat", prompt="word " * 2000)
    wrong = {"model": "chat", "messages": "none"}
    passed, straight = post(daemon, CHAT, wrong), fetch_from(engine_port(daemon), CHAT, wrong)
    assert (passed.status, passed.body) == (straight.status, straight.body)
    assert passed.headers["x-hal0-slot"] == "chat"


def test_without_a_key_there_are_models_but_no_answers(daemon: Daemon) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="wrong", max_retries=0) as client:
        assert client.models.retrieve("chat")
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="chat", messages=MESSAGES)
    assert caught.value.code == "auth.invalid_key"


# The Anthropic client.


def test_a_streamed_message_says_what_a_whole_one_says(claude: anthropic.Anthropic) -> None:
    asked: Any = {"model": "chat", "messages": MESSAGES, "max_tokens": 8, "extra_body": {"temperature": 0}}
    whole: Any = claude.messages.create(**asked, system="Be brief.")
    with claude.messages.stream(**asked, system="Be brief.") as stream:
        said = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert said == whole.content[0].text
    assert last.stop_reason == whole.stop_reason == "max_tokens"
    assert last.usage.output_tokens == whole.usage.output_tokens == 8


def test_counted_tokens_are_those_that_a_chat_takes(claude: anthropic.Anthropic, ask: openai.OpenAI) -> None:
    usage = ask.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=1).usage
    assert usage
    assert claude.messages.count_tokens(model="chat", messages=MESSAGES).input_tokens == usage.prompt_tokens


def test_an_unknown_model_is_anthropics_not_found_error(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="claude-opus", messages=MESSAGES, max_tokens=1)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    assert "no slot and no upstream has it: 'claude-opus'" in body["error"]["message"]


def test_a_wrong_key_is_anthropics_authentication_error(daemon: Daemon) -> None:
    with (
        anthropic.Anthropic(base_url=daemon.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model="chat", messages=MESSAGES, max_tokens=1)


# Plain HTTP.


def test_documents_are_ranked(daemon: Daemon) -> None:
    asked = {"query": "What is a panda?", "documents": ["It is a bear.", "hello"]}
    for path in ("/v1/rerank", "/v1/rerankings"):
        found = post(daemon, path, asked)
        assert (found.status, found.headers["x-hal0-slot"]) == (200, "rerank")
        assert sorted(each["index"] for each in found.json["results"]) == [0, 1]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/tokenize", {"content": "Say hello."}), ("/infill", {"input_prefix": "def a(", "input_suffix": "pass"})],
)
def test_what_an_engine_has_outside_v1_is_asked_for_below_it(daemon: Daemon, path: str, body: dict[str, Any]) -> None:
    passed, straight = (
        post(daemon, f"/v1{path}", {"model": "chat", **body}),
        fetch_from(engine_port(daemon), path, body),
    )
    assert (passed.status, passed.body) == (straight.status, straight.body)


def test_an_engines_own_paths_are_there_on_the_unix_socket_only(daemon: Daemon) -> None:
    found = daemon.fetch_locally("/upstream/chat/props")
    assert found.json["default_generation_settings"]["n_ctx"] == 1024
    refused = daemon.fetch("/upstream/chat/props", None, BEARER)
    assert (refused.status, refused.error["code"]) == (403, "auth.local_only")


def test_the_unix_socket_asks_for_no_key(daemon: Daemon) -> None:
    assert daemon.fetch_locally("/v1/tokenize", {"model": "chat", "content": "hello"}).json["tokens"]


def test_keep_alive_is_hal0s_and_not_the_engines(daemon: Daemon) -> None:
    asked = {"model": "chat", "messages": MESSAGES, "max_tokens": 1}
    assert post(daemon, CHAT, {**asked, "keep_alive": "5m"}).status == 200
    refused = post(daemon, CHAT, {**asked, "keep_alive": "soon"})
    assert (refused.status, refused.error["code"]) == (400, "request.invalid_keep_alive")


def test_an_answer_has_the_clients_request_id_or_a_new_one(daemon: Daemon) -> None:
    asked = {"model": "chat", "content": "hello"}
    own = post(daemon, "/v1/tokenize", asked, **{"X-Request-Id": "mine-1"})
    assert own.headers["x-request-id"] == "mine-1"
    first, second = (post(daemon, "/v1/tokenize", asked).headers["x-request-id"] for _ in range(2))
    assert len({first, second, "mine-1"}) == 3
    unknown = post(daemon, CHAT, {"model": "nothing"}, **{"X-Request-Id": "mine-2"})
    assert (unknown.status, unknown.headers["x-request-id"]) == (404, "mine-2")
    daemon.until("the log's lines", lambda: request_line(daemon, "mine-2"))
    assert request_line(daemon, "mine-1")


def test_an_answer_tells_its_slot_and_the_manifests_commit(daemon: Daemon) -> None:
    found = post(daemon, "/v1/tokenize", {"model": "gpt-4o", "content": "hello"})
    assert found.headers["x-hal0-slot"] == "chat"
    if not shutil.which("git"):
        pytest.skip("no git here: the manifests have no commit")
    assert found.headers["x-hal0-revision"] == git(daemon, "rev-parse", "--short=12", "HEAD")


# What the command line and the metrics tell.


def test_the_command_line_tells_where_a_request_would_go(daemon: Daemon) -> None:
    assert "chat" in daemon.hal0("route", "gpt-4o")
    told = json.loads(daemon.hal0("route", "anything", "--path", "/v1/embeddings", "--json"))
    assert (told["rule"], told["target"]["name"]) == ("path", "embed")
    nowhere = daemon.run("route", "--json", "nothing")
    assert nowhere.returncode == 1
    assert json.loads(nowhere.stdout)["code"] == "model.not_found"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_tokens_of_an_answer_are_counted(daemon: Daemon, ask: openai.OpenAI, *, stream: bool) -> None:
    names = ("prompt_tokens_total", "generation_tokens_total", "time_to_first_token_seconds_count")

    def counts() -> list[float]:
        return [measured(daemon, f"hal0_{name}", slot="chat") for name in names]

    (prompt, generated, streams), asked = counts(), {"messages": MESSAGES, "model": "chat"}
    size = post(daemon, "/v1/messages/count_tokens", asked).json["input_tokens"]
    options: Any = {**asked, "max_tokens": 8, "stream": stream, "extra_body": {"ignore_eos": True}, "temperature": 0}
    answer = ask.chat.completions.create(**options)
    if stream:
        assert list(answer)
    expected = [prompt + size, generated + 8, streams + stream]
    daemon.until(f"counts of {expected}", lambda: counts() == expected)


# Clients that go away, and many that come at once.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_engine_stops_when_its_client_goes_away(daemon: Daemon, *, stream: bool) -> None:
    completed, name = engine_measured(daemon, "tokens_predicted_total"), f"gone-{stream}"
    begun, cancelled = (daemon.engine_log("chat").count(said) for said in (BEGUN, CANCELLED))
    asked = {"model": "chat", "prompt": "One,", "max_tokens": LONG, "ignore_eos": True, "stream": stream}
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(asked), {**BEARER, "X-Request-Id": name})
    # The log tells, and not the engine's metrics: whoever asks for those wakes it, and puts off its look at its client.
    daemon.until("the engine at work", lambda: daemon.engine_log("chat").count(BEGUN) == begun + 1)
    connection.close()
    daemon.until("the end of it", lambda: daemon.engine_log("chat").count(CANCELLED) == cancelled + 1)
    daemon.until("the engine at rest", lambda: engine_measured(daemon, "requests_processing") == 0)
    assert engine_measured(daemon, "tokens_predicted_total") < completed + LONG
    daemon.until("the log's line", lambda: "outcome=client.gone" in request_line(daemon, name))
    assert measured(daemon, "hal0_requests_in_flight", slot="chat") == 0


def request_line(daemon: Daemon, name: str) -> str:
    """Return what hal0's log says of a request; nothing where it has not said it yet."""
    return next((line for line in daemon.log().splitlines() if f"request id={name} " in line), "")


async def crowd(daemon: Daemon, requests: list[tuple[str, dict[str, Any]]]) -> Counter[int]:
    """Ask all of these at once; return how often there was which status."""

    async def one(session: ClientSession, path: str, body: dict[str, Any]) -> int:
        async with session.post(f"{daemon.url}{path}", json=body, headers=BEARER) as answer:
            await answer.read()
            return answer.status

    connector, patience = TCPConnector(limit=0), ClientTimeout(total=None)
    async with ClientSession(connector=connector, timeout=patience) as session:
        return Counter(await asyncio.gather(*(one(session, path, body) for path, body in requests)))


async def test_a_thousand_requests_for_a_cold_slot_start_it_once(daemon: Daemon, descriptors: int) -> None:
    if descriptors < DESCRIPTORS:
        pytest.skip(f"only {descriptors} open files are allowed here, and {DESCRIPTORS} are needed")
    assert daemon.slot("wake")["state"] == "offline"
    # One in ten generates a token, the others want only tokens: a thousand completions are a minute of two CPUs.
    completion = ("/v1/completions", {"model": "wake", "prompt": "One,", "max_tokens": 1})
    tokens = ("/v1/tokenize", {"model": "wake", "content": "One,"})
    assert await crowd(daemon, [completion, *[tokens] * 9] * (CROWD // 10)) == {200: CROWD}
    assert daemon.engine_log("wake").count("ready on") == 1
    starts = [act for act in daemon.slot("wake")["acts"] if "on demand" in act["why"]]
    assert len(starts) == 1
    assert measured(daemon, "hal0_slot_load_seconds_count", slot="wake") == 1
    assert measured(daemon, "hal0_requests_total", slot="wake", code="200") == CROWD
