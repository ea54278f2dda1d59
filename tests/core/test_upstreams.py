from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds import MODEL, desired

from hal0.core.breaker import BreakerPolicy
from hal0.core.schema import UpstreamApi, UpstreamManifest
from hal0.core.secretref import SecretRef
from hal0.core.spec import Desired, UpstreamSpec

URL = "https://api.example/v1"
LEAST = f"kind: Upstream\nname: up\nbase_url: {URL}\n"
OTHER = LEAST.replace("name: up", "name: other")
SLOT = MODEL + "---\nkind: Slot\nname: chat\nmodel: m\n---\n"


def upstream_of(text: str) -> UpstreamSpec:
    found = desired(text)
    assert not found.problems, [str(problem) for problem in found.problems]
    return found.upstreams["up"]


def problems(found: Desired | str) -> list[str]:
    found = desired(found) if isinstance(found, str) else found
    return [str(problem) for problem in found.problems]


# Keys.


def test_the_least_upstream_has_every_default_made_explicit() -> None:
    assert upstream_of(LEAST) == UpstreamSpec(
        name="up",
        base_url=URL,
        api=UpstreamApi.OPENAI,
        api_key=None,
        models=(),
        refresh=600.0,
        prefix="up/",
        headers={},
        connect_timeout=5.0,
        idle_timeout=600.0,
        breaker=BreakerPolicy(failures=5, cooldown=30.0),
        fallback=(),
        source="test.yaml:1",
    )


KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "base_url": ("base_url: http://[::1]:9000/openai/v1/", {"base_url": "http://[::1]:9000/openai/v1"}),
    "api": ("api: anthropic", {"api": UpstreamApi.ANTHROPIC}),
    "api_key": ("api_key: {env: KEY}", {"api_key": SecretRef("env", "KEY")}),
    "models": ("models: [a/b:c, d]", {"models": ("a/b:c", "d")}),
    "refresh": ("refresh: 1m", {"refresh": 60.0}),
    "prefix": ("prefix: Some.where/", {"prefix": "Some.where/"}),
    "headers": ("headers: {X-Team: a b}", {"headers": {"X-Team": "a b"}}),
    "connect_timeout": ("connect_timeout: 250ms", {"connect_timeout": 0.25}),
    "idle_timeout": ("idle_timeout: 1m", {"idle_timeout": 60.0}),
    "failures": ("failures: 1", {"breaker": BreakerPolicy(failures=1)}),
    "cooldown": ("cooldown: 1s", {"breaker": BreakerPolicy(cooldown=1.0)}),
    "fallback": ("fallback: [up/x]", {"fallback": ("up/x",)}),
}


@pytest.mark.parametrize("key", KEYS)
def test_each_key_of_a_manifest_reaches_the_upstream(key: str) -> None:
    text, changes = KEYS[key]
    least = LEAST.replace(f"base_url: {URL}\n", "") if key == "base_url" else LEAST
    assert upstream_of(f"{least}{text}\n") == replace(upstream_of(LEAST), **changes)


def test_no_key_is_without_a_test() -> None:
    assert set(KEYS) == set(UpstreamManifest.model_fields) - {"kind", "name"}
    assert {key for _, changes in KEYS.values() for key in changes} == {
        field.name for field in fields(UpstreamSpec)
    } - {"name", "source"}


@pytest.mark.parametrize("key", KEYS)
def test_each_key_makes_a_generation_of_its_own_and_its_place_does_not(key: str) -> None:
    text, _ = KEYS[key]
    least = LEAST.replace(f"base_url: {URL}\n", "") if key == "base_url" else LEAST
    assert desired(f"{least}{text}\n").content != desired(LEAST).content
    assert desired(f"{OTHER}---\n{LEAST}").content == desired(f"{LEAST}---\n{OTHER}").content


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("kind: Upstream\nname: up", "1: base_url: is required"),
        (f"{LEAST}url: x", "4: url: unknown key (known: kind, name, base_url, "),
        (f"{LEAST}modles: [x]", "4: modles: unknown key (did you mean 'models'?)"),
        (f"{LEAST}api: openal", "4: api: 'openal' is not one of openai, anthropic (did you mean 'openai'?)"),
        (f"{LEAST}models: x", "4: models: input should be a valid list"),
        (f"{LEAST}models: [-x]", "4: models[0]: '-x' does not fit "),
        (f"{LEAST}refresh: 0", "4: refresh: input should be greater than 0"),
        (f"{LEAST}refresh: often", "4: refresh: is not a duration: write it like 90s, 15m or 1h30m"),
        (f"{LEAST}connect_timeout: 0s", "4: connect_timeout: input should be greater than 0"),
        (f"{LEAST}idle_timeout: 0", "4: idle_timeout: input should be greater than 0"),
        (f"{LEAST}cooldown: 0", "4: cooldown: input should be greater than 0"),
        (f"{LEAST}failures: 0", "4: failures: input should be greater than or equal to 1"),
        (f"{LEAST}failures: 1.5", "4: failures: input should be a valid integer"),
        (f"{LEAST}fallback: chat", "4: fallback: input should be a valid list"),
    ],
)
def test_what_is_wrong_with_an_upstream_is_named_with_its_line(text: str, error: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"test.yaml:{error}")


# Addresses.


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        ("http://h", "http://h"),
        ("http://h/", "http://h"),
        ("https://h:65535//", "https://h:65535"),
        ("http://127.0.0.1:1/a/@b/", "http://127.0.0.1:1/a/@b"),
        ("HTTPS://API.Example/v1", "HTTPS://API.Example/v1"),
    ],
)
def test_an_address_is_kept_without_a_slash_at_its_end(url: str, base_url: str) -> None:
    assert upstream_of(LEAST.replace(URL, url)).base_url == base_url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "is no address of an API: write it like https://api.example.com/v1"),
        ("api.example/v1", "is no address of an API"),
        ("/v1", "is no address of an API"),
        ("ftp://h/v1", "is no address of an API"),
        ("unix:///run/x.sock", "is no address of an API"),
        ("http://", "is no address of an API"),
        ("http://:80/v1", "is no address of an API"),
        ("http://a b/v1", "is no address of an API"),
        ("http://h/a\\nb", "is no address of an API"),
        ("http://h\\x00/", "is no address of an API"),
        ("http://hôte/v1", "is no address of an API"),
        ("http://h/v1?key=x", "must be a plain address: a key belongs to api_key, further headers to headers"),
        ("http://h/v1?", "must be a plain address"),
        ("http://h/v1#top", "must be a plain address"),
        ("http://user:secret@h/v1", "must be a plain address"),
        ("user:secret@h/v1", "is no address of an API"),
        ("http://user:secret@", "is no address of an API"),
        ("http://@h/v1", "must be a plain address"),
        ("http://h:65536/v1", "ort out of range 0-65535"),
        ("http://h:0/v1", "0 is no port"),
        ("http://h:x/v1", "ort could not be cast to integer value as 'x'"),
        ("http://[::1/v1", "nvalid IPv6 URL"),
    ],
)
def test_what_is_no_plain_address_is_refused_and_a_secret_in_it_is_not_told(url: str, why: str) -> None:
    (found,) = problems(LEAST.replace(URL, f'"{url}"'))
    assert found.startswith("test.yaml:3: base_url: ")
    assert why in found
    assert "secret" not in found


addresses = st.text(max_size=20) | st.from_regex(r"https?://[ -~é@:?#\[\]]{0,15}", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(addresses)
@example("http://[::1]")
def test_any_text_is_an_address_that_can_be_asked_or_is_refused(text: str) -> None:
    try:
        found = UpstreamManifest.model_validate({"kind": "Upstream", "name": "up", "base_url": text}).base_url
    except ValidationError:
        return
    parts = urlsplit(found)
    assert parts.scheme in {"http", "https"}
    assert parts.hostname
    assert parts.port is None or 1 <= parts.port <= 65535
    assert not any((parts.username, parts.password, parts.query, parts.fragment))
    assert found.isascii()
    assert found.isprintable()
    assert not found.endswith("/")


# Secrets.

HOST = "kind: Host\nname: host\n# a line\n"
SECRETS = [(LEAST, "api_key"), (HOST, "api_keys")]


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("{env: KEY}", SecretRef("env", "KEY")),
        ("{file: /run/secrets/key}", SecretRef("file", "/run/secrets/key")),
        ("{credential: key.v1}", SecretRef("credential", "key.v1")),
    ],
)
def test_a_secret_is_one_place_and_only_the_place_is_kept(text: str, ref: SecretRef) -> None:
    assert upstream_of(f"{LEAST}api_key: {text}\n").api_key == ref
    assert desired(f"{HOST}api_keys: {text}\n").host.api_keys == ref
    assert str(ref) == f"{ref.kind} {ref.name}"


@pytest.mark.parametrize(("manifest", "key"), SECRETS)
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{}", ": name exactly one of env, file, credential"),
        ("{env: A, file: /b}", ": name exactly one of env, file, credential"),
        ("{env: A, credential: null}", ": name exactly one of env, file, credential"),
        ("{env: null}", ": name exactly one of env, file, credential"),
        ("{env: ''}", ".env: is not the name of an environment variable"),
        ("{env: sk-123}", ".env: is not the name of an environment variable"),
        ('{env: "A\\nB"}', ".env: must be one line, without NUL"),
        ("{file: sk-123}", ".file: must be an absolute path"),
        ("{file: ''}", ".file: must be an absolute path"),
        ("{credential: ../sk-123}", ".credential: is not the name of a credential"),
        ("{credential: ..}", ".credential: is not the name of a credential"),
        ("{credential: ''}", ".credential: is not the name of a credential"),
        ("{credentials: a}", ".credentials: unknown key (did you mean 'credential'?)"),
        ("sk-123", ": say where the secret is, not what it is: name one of env, file, credential"),
        ("[sk-123]", ": say where the secret is, not what it is: name one of env, file, credential"),
    ],
)
def test_a_secret_that_is_not_exactly_one_place_is_refused_and_not_told(
    manifest: str, key: str, text: str, error: str
) -> None:
    (found,) = problems(f"{manifest}{key}: {text}\n")
    assert found.startswith(f"test.yaml:4: {key}{error}")
    assert "sk-123" not in found


# Headers.


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "x-api-key", "API-Key", "cookie", "Host", "Content-Length", "transfer-encoding"),
        *("Connection", "keep-alive", "TE", "Trailer", "upgrade", "Expect", "X-Request-Id"),
        *("Content-Type", "content-encoding", "Accept-Encoding"),
    ],
)
def test_a_header_that_is_hal0s_own_is_refused(name: str) -> None:
    (found,) = problems(f"{LEAST}headers: {{{name}: x}}\n")
    assert found.startswith(f"test.yaml:4: headers.{name}")
    assert f"{name!r} is hal0's to send" in found
    assert found.endswith(": see api_key") is (name.lower() in {"authorization", "x-api-key", "api-key", "cookie"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\\n", "a\\0"])
def test_what_is_no_name_of_a_header_is_refused(name: str) -> None:
    (found,) = problems(f'{LEAST}headers: {{"{name}": x}}\n')
    assert "is not the name of a header" in found


def test_a_headers_value_is_one_line() -> None:
    (found,) = problems(f'{LEAST}headers: {{X-A: "b\\r\\nX-C: d"}}\n')
    assert found == "test.yaml:4: headers.X-A: must be one line, without NUL"


# Prefixes and names.


@pytest.mark.parametrize(("prefix", "found"), [("''", ""), ("x/", "x/"), ("A.b:c@d+e_f-9/", "A.b:c@d+e_f-9/")])
def test_a_prefix_is_one_part_with_its_slash_or_nothing(prefix: str, found: str) -> None:
    assert upstream_of(f"{LEAST}prefix: {prefix}\n").prefix == found


@pytest.mark.parametrize("prefix", ["x", "/", "a/b/", "x//", "-x/", "x /", '"x/\\n"'])
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    (found,) = problems(f"{LEAST}prefix: {prefix}\n")
    assert found.startswith("test.yaml:4: prefix: ")
    assert " does not fit " in found


def test_two_upstreams_with_one_prefix_are_a_clash_that_the_second_is_told_of() -> None:
    found = desired(f"{LEAST}---\n{OTHER}prefix: up/\n")
    assert problems(found) == ["test.yaml:8: prefix: 'up/' is the prefix of test.yaml:1"]
    assert set(found.upstreams) == {"up"}


def test_any_number_of_upstreams_may_do_without_a_prefix() -> None:
    assert set(desired(f"{LEAST}prefix: ''\n---\n{OTHER}prefix: ''\n").upstreams) == {"up", "other"}


@pytest.mark.parametrize(("text", "line"), [(f"{LEAST}prefix: hal0/\n", 4), (LEAST.replace("up", "hal0"), 1)])
def test_hal0s_own_prefix_is_refused(text: str, line: int) -> None:
    (found,) = problems(text)
    assert found == f"test.yaml:{line}: prefix: 'hal0/' leads to hal0's own slots (set another prefix)"


def test_an_upstream_that_is_declared_twice_is_named_at_both_places_and_not_used() -> None:
    found = desired(f"{LEAST}---\n{LEAST}---\n{OTHER}")
    assert [text.partition(" Upstream")[0] for text in problems(found)][:2] == [
        "test.yaml:2: name:",
        "test.yaml:6: name:",
    ]
    assert set(found.upstreams) == {"other"}


# The last good ones.

BEFORE = desired(f"{SLOT}{LEAST}---\n{OTHER}")
BROKEN = {
    "an unknown key": LEAST + "x: 1\n",
    "no address": LEAST.replace(URL, "nowhere"),
    "a clash": LEAST + "prefix: other/\n",
    "a fallback that leads nowhere": LEAST + "fallback: [gone]\n",
    "a misspelt kind": LEAST.replace("Upstream", "Upstraem"),
    "a manifest that is gone beside one that is broken": "kind: Slit\n",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_upstream_stays_as_it_was_and_everything_else_goes_on(what: str) -> None:
    other = OTHER.replace(URL, "http://elsewhere")
    found = desired(f"{SLOT}{other}---\n{BROKEN[what]}", before=BEFORE)
    assert found.problems
    assert found.upstreams["up"] == BEFORE.upstreams["up"]
    assert found.upstreams["other"].base_url == "http://elsewhere"
    assert found.slots == BEFORE.slots


def test_an_upstream_that_is_gone_is_dropped_as_soon_as_all_is_well() -> None:
    broken = desired(f"{SLOT}{OTHER}---\nkind: Slit\n", before=BEFORE)
    assert set(broken.upstreams) == {"up", "other"}
    assert set(desired(f"{SLOT}{OTHER}", before=broken).upstreams) == {"other"}


def test_a_broken_upstream_that_never_was_is_not_there() -> None:
    found = desired(f"{OTHER}---\n{LEAST}x: 1\n")
    assert set(found.upstreams) == {"other"}


def test_a_broken_slot_keeps_no_upstream_from_what_its_manifest_says() -> None:
    found = desired(f"{SLOT.replace('model: m', 'model: gone')}{LEAST}refresh: 1m\n---\n{OTHER}", before=BEFORE)
    assert found.upstreams["up"].refresh == 60.0
    assert found.slots["chat"].problems
