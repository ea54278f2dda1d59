from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import desired, slots

from hal0.core.argv_diff import argv_differences
from hal0.core.differences import differences

EVERY = {
    "env": "{HF_TOKEN: abc, LEVEL: '1'}",
    "limits": "{memory: 4Gi, cpus: 2}",
    "port": "8085",
    "args": "[--temp, '0.3', --api-key, sk-1]",
}


def argv(**settings: str) -> tuple[str, ...]:
    return desired(slots("chat", **(EVERY | settings))).slots["chat"].launch.argv


DECLARED = argv()


def told(*found: str) -> list[tuple[str, str, str]]:
    return [tuple(difference) for difference in argv_differences(DECLARED, found)]  # type: ignore[misc]


def without(begin: str) -> tuple[str, ...]:
    return tuple(word for word in DECLARED if not word.startswith(begin))


def replaced(word: str, by: str) -> tuple[str, ...]:
    return tuple(by if own == word else own for own in DECLARED)


def at_image(*options: str) -> tuple[str, ...]:
    """Return the declared command with more of podman's options."""
    return (*DECLARED[:2], *options, *DECLARED[2:])


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        (argv(limits="{memory: 2Gi, cpus: 2}"), ("memory", "2.0 GiB", "4.0 GiB")),
        (replaced("--cpus=2", "--cpus=3"), ("cpus", "3", "2")),
        (argv(port="8086"), ("port", "127.0.0.1:8086:8080", "127.0.0.1:8085:8080")),
        (argv(env="{HF_TOKEN: abc, LEVEL: '2'}"), ("env", "LEVEL=2", "LEVEL=1")),
        (argv(env="{HF_TOKEN: abc}"), ("env", "none", "LEVEL=1")),
        (argv(args="[--temp, '0.9', --api-key, sk-1]"), ("args", "--temp 0.9", "--temp 0.3")),
        (argv(args="[--api-key, sk-1]"), ("args", "none", "--temp 0.3")),
        (at_image("--device=/dev/dri"), ("devices", "/dev/dri", "none")),
        (at_image("--device", "/dev/dri"), ("devices", "/dev/dri", "none")),
        (at_image("--group-add=44"), ("groups", "44", "none")),
        (at_image("-v", "/etc:/etc"), ("mounts", "/etc:/etc", "none")),
        (at_image("--privileged"), ("options", "--privileged", "none")),
        (without("--read-only"), ("options", "none", "--read-only")),
        (("/bin/sleep", "1000"), ("command", "/bin/sleep", "podman")),
    ],
)
def test_what_differs_is_named(found: tuple[str, ...], difference: tuple[str, str, str]) -> None:
    assert told(*found) == [difference]


def test_another_image_is_named_and_its_command_compared() -> None:
    image = DECLARED.index("ggml-org/llama.cpp:server")
    assert told(*DECLARED[:image], "evil:1", *DECLARED[image + 1 :]) == [
        ("image", "evil:1", "ggml-org/llama.cpp:server"),
    ]


def test_a_secret_is_told_by_its_name() -> None:
    found = argv(env="{HF_TOKEN: hunter2, LEVEL: '1'}", args="[--temp, '0.3', --api-key, two]")
    assert told(*found) == [("env", "HF_TOKEN=…", "HF_TOKEN=…"), ("args", "--api-key …", "--api-key …")]


def test_a_secret_of_the_manifests_is_told_by_its_name_too() -> None:
    before = desired(slots("chat", **EVERY)).slots["chat"].spec
    after = desired(slots("chat", env="{PGPASSWORD: hunter2}", args="[--api-key=hunter2]")).slots["chat"].spec
    text = "; ".join(map(str, differences(before, after)))
    assert "PGPASSWORD=…" in text
    assert "--api-key=…" in text
    assert not any(secret in text for secret in ("hunter2", "abc", "sk-1"))


def test_the_hash_and_the_order_are_no_differences() -> None:
    options = [word for word in DECLARED[2:] if word.startswith("--env=")]
    others = [word for word in DECLARED[2:] if not word.startswith(("--env=", "--label=hal0.spec="))]
    assert told(*DECLARED[:2], *reversed(options), *others) == []
    assert told() == []


def test_a_child_is_compared_by_its_flags() -> None:
    declared = ("/usr/bin/python3", "-m", "engine", "--port", "8081", "--temp", "-1")
    found = ("/usr/bin/python3", "-m", "engine", "--port=8082", "--temp", "-1")
    assert argv_differences(declared, found) == (("args", "--port 8082", "--port 8081"),)


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=12))
def test_any_command_line_can_be_compared(words: list[str]) -> None:
    found = ("/usr/bin/podman", "run", *words)
    assert all(difference.found != "" and difference.declared != "" for difference in argv_differences(DECLARED, found))
    assert argv_differences(DECLARED, DECLARED) == ()
