from __future__ import annotations

import pytest

from hal0.core.documents import parse_file
from hal0.core.kinds import KINDS
from hal0.core.schema import SlotManifest
from hal0.core.validate import Located, validate

SLOT = "kind: Slot\nname: chat\nmodel: m\n"
MODEL = "kind: Model\nname: m\npath: m.gguf\n"
PROFILE = "kind: Profile\nname: own\nimage: engine:1\n"
UPSTREAM = "kind: Upstream\nname: up\nbase_url: https://api.example/v1\n"
CAPABILITY = "kind: Capability\nname: embed\n"
HOST = "kind: Host\n"


def errors_of(text: str, file: str = "a.yaml") -> list[str]:
    documents, errors = parse_file(file, text)
    assert not errors
    return [str(error) for error in validate(documents)[1]]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("name: chat\n", "1: kind: every manifest needs a kind (one of Slot, Model, Profile, Upstream, Capabi"),
        ("name: chat\nkind: Slott\n", "2: kind: 'Slott' is not a kind (did you mean 'Slot'?)"),
        ("kind: slot\n", "1: kind: 'slot' is not a kind (did you mean 'Slot'?)"),
        ("kind: [Slot]\n", "1: kind: ['Slot'] is not a kind (did you mean 'Slot'?)"),
        ("kind: 7\n", "1: kind: 7 is not a kind (one of Slot, Model, Profile, Upstream, Capability, Host)"),
        (SLOT + "contextsize: 1\n", "4: contextsize: unknown key (did you mean 'context_size'?)"),
        (SLOT + "limits:\n  memoryy: 1\n", "5: limits.memoryy: unknown key (did you mean 'memory'?)"),
        (SLOT + "limits: {gpus: 1}\n", "4: limits.gpus: unknown key (did you mean 'cpus'?)"),
        (SLOT + "limits: {x: 1}\n", "4: limits.x: unknown key (known: memory, cpus)"),
        (SLOT + "device: gpu-vulcan\n", "4: device: 'gpu-vulcan' is not one of cpu, gpu-vulkan, gpu-rocm, "),
        (SLOT + "device: vulkan\n", "4: device: 'vulkan' is not one of cpu, gpu-vulkan, gpu-rocm, gpu-cuda, npu"),
        (SLOT + "run: sometimes\n", "4: run: 'sometimes' is not one of always, on-demand, never"),
        (SLOT + "type: 1\n", "4: type: 1 is not one of llm, embedding, reranking, transcription, tts, image"),
        (SLOT + "drift: heel\n", "4: drift: 'heel' is not one of heal, alert, heal-when-idle (did you mean 'heal'?)"),
        (PROFILE + "engine: llama\n", "4: engine: 'llama' is not one of llama-server, whisper-server, "),
        ("kind: Slot\nname: chat\n", "1: model: is required"),
        ("# a comment\nkind: Model\nname: m\n", "2: path: is required"),
        (SLOT + "port: 0\n", "4: port: input should be greater than or equal to 1"),
        (SLOT + "port: 65536\n", "4: port: input should be less than or equal to 65535"),
        (SLOT + "port: true\n", "4: port: input should be a valid integer"),
        (SLOT + "port: '8081'\n", "4: port: input should be a valid integer"),
        (SLOT + "port: 8081.5\n", "4: port: input should be a valid integer"),
        (SLOT + "context_size: 0\n", "4: context_size: input should be greater than or equal to 1"),
        (SLOT + "aliases: a\n", "4: aliases: input should be a valid list"),
        (SLOT + "aliases:\n- a\n- 2\n", "6: aliases[1]: input should be a valid string"),
        (SLOT + "aliases: [-a]\n", "4: aliases[0]: '-a' does not fit ^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"),
        (SLOT + "args: [a, true]\n", "4: args[1]: input should be a valid string"),
        (SLOT + 'args:\n- a\n- "b\\nc"\n', "6: args[1]: must be one line, without NUL"),
        (SLOT + 'args: ["b\\0c"]\n', "4: args[0]: must be one line, without NUL"),
        (SLOT + 'args: ["\\ufffe"]\n', "4: args[0]: holds a noncharacter, which systemd does not take for UTF-8"),
        (SLOT + "env: {A: 1}\n", "4: env.A: input should be a valid string"),
        (SLOT + 'env: {A: "1\\r"}\n', "4: env.A: must be one line, without NUL"),
        (SLOT + "env: {A-B: x}\n", "4: env: 'A-B' is not the name of an environment variable"),
        (SLOT + 'env: {"A\\n": x}\n', "4: env: 'A\\n' is not the name of an environment variable"),
        (SLOT + "env: [A]\n", "4: env: input should be a valid dictionary"),
        (SLOT + "limits: 8Gi\n", "4: limits: input should be a valid dictionary or instance of Limits"),
        (SLOT + "limits:\n  memory: lots\n", "5: limits.memory: is not a size: write it like 512Mi, 8Gi or 4G"),
        (SLOT + "limits: {cpus: 0}\n", "4: limits.cpus: input should be greater than 0"),
        (SLOT + "limits: {cpus: inf}\n", "4: limits.cpus: input should be a finite number"),
        (SLOT + "idle_timeout: soon\n", "4: idle_timeout: is not a duration: write it like 90s, 15m or 1h30m"),
        (SLOT + "suspend: perhaps\n", "4: suspend: input should be a valid boolean"),
        ("kind: Model\nname: m\npath: [a]\n", "3: path: input should be a valid string"),
        (PROFILE + "probe: health\n", "4: probe: 'health' does not fit ^/[!-~]*$"),
        (HOST + "slot_ports: '9000'\n", "2: slot_ports: '9000' does not fit ^\\d{1,5}-\\d{1,5}$"),
        (HOST + "slot_ports: 9000-8000\n", "1: slot_ports: 9000-8000 is no range of ports: write it like 8081-8099"),
        (HOST + "slot_ports: 0-10\n", "1: slot_ports: 0-10 is no range of ports: write it like 8081-8099"),
        (HOST + "listen: '8080'\n", "2: listen: '8080' is no address to listen on: write it like 127.0.0.1:8080"),
        (HOST + "resync: 0\n", "2: resync: input should be greater than 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line_and_what_was_probably_meant(text: str, error: str) -> None:
    (found,) = errors_of(text)
    assert found.startswith(f"a.yaml:{error}")


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ü", "a\n", "a" * 41, "../a", "a/b", "%i", "a@b"]
)
@pytest.mark.parametrize("kind", ["Slot", "Profile"])
def test_a_bad_name_is_refused(kind: str, name: str) -> None:
    text = f'kind = "{kind}"\nmodel = "m"\n' if kind == "Slot" else f'kind = "{kind}"\n\n'
    (error,) = errors_of(text + f"name = {name!r}".replace("'", '"'), "a.toml")
    assert error.startswith(f"a.toml:3: name: {name!r} does not fit ")


@pytest.mark.parametrize("name", ["a", "7", "chat", "qwen3-30b", "a" * 40, "0-0"])
def test_a_good_name_is_taken(name: str) -> None:
    assert errors_of(f"kind: Slot\nname: '{name}'\nmodel: m\n") == []


@pytest.mark.parametrize("name", ["", "-a", "a b", "a,b", "a\n", "a" * 129])
def test_a_bad_model_id_is_refused(name: str) -> None:
    (error,) = errors_of(f'kind = "Model"\nname = {name!r}\npath = "m"'.replace("'", '"'), "a.toml")
    assert error.startswith("a.toml:2: name: ")


@pytest.mark.parametrize("name", ["a", "Qwen/Qwen3-0.6B:Q4_K_M", "org/model@v1+x"])
def test_a_model_id_may_have_slashes_and_colons(name: str) -> None:
    assert errors_of(f"kind: Model\nname: {name}\npath: m\n") == []


def test_all_errors_of_all_documents_come_at_once() -> None:
    text = SLOT + "prot: 1\nrun: no\n---\nkind: Modell\n---\n" + MODEL + "---\n" + PROFILE + "port: x\n"
    documents, _ = parse_file("a.yaml", text)
    good, errors = validate(documents)
    assert [located.manifest.name for located in good] == ["m"]
    assert sorted((error.line, error.key, error.kind, error.name) for error in errors) == [
        (4, "prot", "Slot", "chat"),
        (5, "run", "Slot", "chat"),
        (7, "kind", "", ""),
        (16, "port", "Profile", "own"),
    ]


def test_the_line_of_a_toml_error_is_that_of_its_key() -> None:
    text = 'kind = "Slot"\nname = "chat"\nmodel = "m"\nargs = [\n  "a",\n]\n\n'
    text += '[limits]\n# how much\nmemory = "x"\ncpus = -1\n'
    assert [error.partition(" ")[0] for error in errors_of(text, "a.toml")] == ["a.toml:10:", "a.toml:11:"]


def test_an_error_without_a_usable_name_has_none() -> None:
    documents, _ = parse_file("a.yaml", "kind: Slot\nname: [a]\nmodel: m\n")
    (error,) = validate(documents)[1]
    assert (error.kind, error.name, error.key) == ("Slot", "", "name")


def test_a_valid_manifest_knows_where_it_was_written() -> None:
    documents, _ = parse_file("dir/a.yaml", "# a comment\n" + SLOT + "limits:\n  cpus: 1\n")
    (located,) = validate(documents)[0]
    assert isinstance(located, Located)
    assert isinstance(located.manifest, SlotManifest)
    assert located.source == "dir/a.yaml:2"
    error = located.error("is too small", "limits", "cpus", hint="more")
    assert str(error) == "dir/a.yaml:6: limits.cpus: is too small (more)"
    assert (error.kind, error.name) == ("Slot", "chat")


def test_every_kind_has_a_least_manifest() -> None:
    documents, _ = parse_file("a.yaml", f"{SLOT}---\n{MODEL}---\n{PROFILE}---\n{UPSTREAM}---\n{CAPABILITY}---\n{HOST}")
    good, errors = validate(documents)
    assert not errors
    assert [located.manifest.kind for located in good] == list(KINDS)
