"""hal0.lock: its text, and what it does to what the manifests ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import FACTS, MODEL, desired, slots

from hal0.core.differences import behind_lock, differences
from hal0.core.documents import ManifestError
from hal0.core.facts import Known
from hal0.core.lock import lock_text, parse_lock
from hal0.core.locked import images_of, not_as_locked, stale, unpinned, void
from hal0.core.observed import unobserved
from hal0.core.pins import FilePin, ImagePin, Lock, ModelPin, repository, source_name
from hal0.core.spec import Desired
from hal0.host.specs import dumped, loaded

A, B, C = "a" * 64, "b" * 64, "c" * 64
IMAGE = "ggml-org/llama.cpp:server"
PIN = ModelPin("", (FilePin("m.gguf", A, 10),))
LOCK = Lock({"m": PIN}, {IMAGE: ImagePin(f"sha256:{C}")})
HUB = "kind: Model\nname: m\nsource: {repo: org/repo, file: m-00001-of-00002.gguf}\nmmproj: eye.gguf\n"
HUB_PIN = ModelPin(
    "org/repo/m-00001-of-00002.gguf@main",
    (FilePin("m-00001-of-00002.gguf", A, 1), FilePin("m-00002-of-00002.gguf", B), FilePin("eye.gguf", C, 3)),
    "f00",
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
sums = st.text("0123456789abcdef", min_size=64, max_size=64)
files = st.builds(FilePin, words, sums, st.none() | st.integers(0, 2**62))
models = st.builds(ModelPin, words, st.lists(files, min_size=1, max_size=3).map(tuple), words)
images = st.builds(lambda sha: ImagePin(digest=f"sha256:{sha}"), sums) | st.builds(lambda sha: ImagePin(id=sha), sums)
locks = st.builds(Lock, st.dictionaries(words, models, max_size=4), st.dictionaries(words, images, max_size=4))


def test_the_lock_that_the_documentation_shows_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "manifests.md").read_text()
    block = page.partition("## The lock")[2].partition("```text\n")[2].partition("```")[0]
    found = parse_lock("hal0.lock", block)
    assert isinstance(found, Lock)
    assert (len(found.models), len(found.images)) == (1, 1)
    assert lock_text(found).partition("\n")[2] == block


@given(locks)
def test_what_is_written_is_read_back(lock: Lock) -> None:
    assert parse_lock("hal0.lock", lock_text(lock)) == lock


@given(locks)
def test_the_text_is_the_same_in_whatever_order_the_pins_came(lock: Lock) -> None:
    turned = Lock(dict(reversed([*lock.models.items()])), dict(reversed([*lock.images.items()])))
    assert lock_text(turned) == lock_text(lock)


@given(st.text() | st.builds(lambda lock, at, more: lock_text(lock)[:at] + more, locks, st.integers(0, 400), st.text()))
def test_any_text_is_a_lock_or_an_error(text: str) -> None:
    found = parse_lock("hal0.lock", text)
    assert isinstance(found, Lock | ManifestError)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("<<<<<<< ours\nversion = 1\n", 1, "hal0.lock:1: "),
        ("version = 2\n", 1, "2 is not 1, the only version"),
        ("", 1, "version: field required"),
        ("version = 1\nfuture = 3\n", 2, "future: extra inputs are not permitted"),
        (f'version = 1\n[[image]]\nreference = "x"\n\ndigest = "{A}"\n', 5, "image[0].digest: "),
        ('version = 1\n[[image]]\nreference = "x"\n', 2, "exactly one of digest, id"),
        ('version = 1\n[[model]]\nname = "x"\nfiles = []\n', 4, "model[0].files: "),
        (
            f'version = 1\n[[image]]\nreference = "x"\nid = "{A}"\n' + f'[[image]]\nreference = "x"\nid = "{B}"\n',
            1,
            "twice",
        ),
    ],
)
def test_what_is_wrong_with_a_lock_is_told_with_its_line_and_a_way_out(text: str, line: int, says: str) -> None:
    found = parse_lock("hal0.lock", text)
    assert isinstance(found, ManifestError)
    assert found.line == line
    assert says in str(found)
    assert "remove hal0.lock and run hal0 lock" in found.hint


def slot(found: Desired) -> object:
    return found.slots["chat"]


def test_an_empty_lock_changes_no_hash_and_no_line() -> None:
    assert slot(desired(slots("chat"), lock=Lock())) == slot(desired(slots("chat")))


def test_a_pinned_image_is_run_by_its_digest_and_a_pinned_model_is_told_to_the_container() -> None:
    found = desired(slots("chat"), lock=LOCK).slots["chat"]
    assert found.spec.image == f"ggml-org/llama.cpp@sha256:{C}"
    assert found.spec.declared_image == IMAGE
    assert f"ggml-org/llama.cpp@sha256:{C}" in found.launch.argv
    assert IMAGE not in found.launch.argv
    assert f"--label=hal0.model={A[:16]}" in found.launch.argv
    other = desired(slots("chat"), lock=replace(LOCK, models={"m": ModelPin("", (FilePin("m.gguf", B, 10),))}))
    assert other.slots["chat"].spec_hash != found.spec_hash


def test_an_image_of_no_registry_is_run_by_its_id() -> None:
    found = desired(slots("chat"), lock=Lock({}, {IMAGE: ImagePin(id=C)})).slots["chat"].spec
    assert (found.image, found.declared_image, found.is_locked_to_id) == (C, IMAGE, True)


def test_a_child_process_is_told_of_its_model_and_has_no_image() -> None:
    facts = replace(FACTS, runtime="process")
    found = desired(slots("chat"), facts=facts, lock=LOCK).slots["chat"]
    bare = desired(slots("chat"), facts=facts).slots["chat"]
    assert (found.spec.image, found.launch.env) == ("", {"HAL0_MODEL": A[:16]})
    assert "HAL0_MODEL" not in bare.launch.env
    assert found.spec_hash != bare.spec_hash


def test_a_locked_download_is_of_the_commit_and_of_these_bytes() -> None:
    found = desired(HUB, lock=Lock({"m": HUB_PIN})).registry["m"]
    assert found.download
    told = [(file.source.revision, file.sha256, file.pin) for file in found.download.files]
    assert told == [("f00", pin.sha256, pin) for pin in HUB_PIN.files]
    assert found.source.revision == "main"
    assert found.wanted_sha256 == A


@pytest.mark.parametrize(
    ("text", "pin", "why"),
    [
        (HUB, HUB_PIN, ""),
        (HUB.replace("org/", "other/"), HUB_PIN, "it was locked as org/repo/m-00001-of-00002.gguf@main"),
        (HUB.replace("eye", "nose"), HUB_PIN, "it was locked with the files m-00001"),
        (HUB.replace("file: m-0", "revision: v2, file: m-0"), HUB_PIN, "it was locked as org/repo/m-00001"),
        (MODEL, HUB_PIN, "it was locked as org/repo"),
        (MODEL + f"sha256: {A.upper()}\n", PIN, ""),
        (MODEL + f"sha256: {B}\n", PIN, "its manifest says that its sha256 is bbbbbbbbbbbb"),
        (HUB, PIN, "it was locked as put there by hand"),
    ],
)
def test_a_pin_whose_manifest_says_something_else_is_void_and_named(text: str, pin: ModelPin, why: str) -> None:
    found = desired(text, lock=Lock({"m": pin}))
    spec = found.registry["m"]
    assert void(spec, pin).startswith(why)
    assert bool(void(spec, pin)) == bool(why) == (spec.pin is None)
    assert [each.name for each in stale(found, images=True)] == (["m"] if why else [])


def test_pins_that_nobody_needs_and_what_has_none_are_named() -> None:
    lock = Lock({"gone": PIN}, {"old:1": ImagePin(id=C)})
    found = desired(slots("chat"), lock=lock)
    assert [str(each) for each in stale(found, images=True)] == [
        "model gone: no manifest declares it",
        "image old:1: no slot has it",
    ]
    assert [each.kind for each in stale(found, images=False)] == ["model"]
    assert [(each.kind, each.name) for each in unpinned(found, images=True)] == [("model", "m"), ("image", IMAGE)]
    assert unpinned(desired(slots("chat"), lock=LOCK), images=True) == ()


def test_an_image_that_names_its_digest_needs_no_pin() -> None:
    text = f"{slots('chat', profile='own')}---\nkind: Profile\nname: own\nimage: x/y@sha256:{A}\n"
    assert images_of(desired(text)) == frozenset()


def test_a_lock_that_cannot_be_read_leaves_every_slot_as_it_was() -> None:
    before = desired(slots("chat"), lock=LOCK)
    error = "kind: Slot\nname: Bad Name\n"
    broken = desired(f"{slots('chat', 'new', context_size=5)}---\n{error}", lock=None, before=before)
    assert broken.slots.keys() == {"chat"}
    assert broken.slots["chat"].spec == before.slots["chat"].spec


def test_reasons_tell_digests_and_that_they_are_the_locks() -> None:
    bare, first = desired(slots("chat")).slots["chat"].spec, desired(slots("chat"), lock=LOCK).slots["chat"].spec
    upgraded = Lock({"m": ModelPin("", (FilePin("m.gguf", B, 10),))}, {IMAGE: ImagePin(f"sha256:{B}")})
    second = desired(slots("chat"), lock=upgraded).slots["chat"].spec
    assert [*map(str, differences(bare, first))] == [
        f"image: {IMAGE} -> sha256:{C[:12]} (lock)",
        f"model: not locked -> sha256:{A[:12]} (lock)",
    ]
    told = [f"image: sha256:{C[:12]} -> sha256:{B[:12]} (lock)", f"model: sha256:{A[:12]} -> sha256:{B[:12]} (lock)"]
    assert [*map(str, differences(first, second))] == told
    assert [*map(str, behind_lock(first, second))] == [told[1], told[0]]
    assert behind_lock(first, first) == behind_lock(first, bare) == ()


@pytest.mark.parametrize(
    ("reference", "repo"),
    [("a/b:server", "a/b"), ("localhost:5000/b", "localhost:5000/b"), ("localhost:5000/b:1", "localhost:5000/b")],
)
def test_a_repository_is_a_reference_without_its_tag(reference: str, repo: str) -> None:
    assert repository(reference) == repo
    assert ImagePin(digest="sha256:x").place(reference) == f"{repo}@sha256:x"


def test_an_addresss_query_is_in_no_lock() -> None:
    found = desired("kind: Model\nname: m\nsource: {url: 'https://x.example/m.gguf?key=s3cret'}\n").registry["m"]
    assert source_name(found.source) == "https://x.example/m.gguf"


def test_a_pinned_spec_is_stored_and_read_back() -> None:
    spec = desired(slots("chat"), lock=LOCK).slots["chat"].spec
    assert loaded("chat", dumped(spec)) == spec


UPGRADED = Lock({"m": ModelPin("", (FilePin("m.gguf", B, 10),))}, {IMAGE: ImagePin(f"sha256:{B}")})


def test_a_slot_that_keeps_an_older_spec_is_not_as_locked() -> None:
    old, found = desired(slots("chat"), lock=LOCK), desired(slots("chat"), lock=UPGRADED)
    seen = {"chat": replace(unobserved("?"), model=Known(value=True))}
    assert not_as_locked(found, found.slots, seen, ()) == ()
    assert [*map(str, not_as_locked(found, old.slots, seen, ()))] == [
        "model m: slot chat keeps an older one",
        f"image {IMAGE}: slot chat keeps an older one",
    ]


def test_what_cannot_be_seen_is_not_known_to_be_as_locked() -> None:
    found = desired(slots("chat"), lock=LOCK)
    assert [*map(str, not_as_locked(found, found.slots, {}, ()))] == ["model m: it can't be seen: not looked up"]


def test_nothing_fetches_the_files_of_an_older_lock() -> None:
    old = desired(f"{slots('chat')}---\n{HUB.replace('name: m', 'name: hub')}", lock=Lock({"hub": HUB_PIN}))
    spec = replace(old.slots["chat"].spec, model="hub", model_path=old.registry["hub"].path)
    spec = replace(spec, mmproj_path=old.registry["hub"].mmproj, model_pins=HUB_PIN.files)
    assert old.download(spec)
    newer = replace(
        old, registry={"hub": replace(old.registry["hub"], pin=replace(HUB_PIN, files=HUB_PIN.files[::-1]))}
    )
    assert newer.download(spec) is None
