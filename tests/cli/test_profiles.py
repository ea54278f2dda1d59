from __future__ import annotations

from .conftest import Place


def test_a_command_line_is_told_with_its_origins(place: Place) -> None:
    place.put_slots("chat", args="[--size, 2, --api-key, s3cret]")
    place.put("q.yaml", "kind: Profile\nname: more\nextends: tiny\nargs: [--size, 1]\n")
    place.put("chat.yaml", (place.root / "chat.yaml").read_text().replace("tiny", "more"))
    with place.serving():
        place.until_ready("chat")
        done = place.hal0("slot", "show", "chat", "--command")
        shown = place.json("profile", "show", "more")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert "s3cret" not in done.stdout
    assert any(line.endswith(f"  profile tiny ({place.root}/p.yaml:4)") for line in lines)
    (size,) = [line for line in lines if line.startswith("  --size 2 ")]
    assert size.endswith(f"chat.yaml:6), in the place of --size 1 of profile more ({place.root}/q.yaml:4)")
    assert (shown["slots"], [one["name"] for one in shown["profiles"]]) == (["chat"], ["more", "tiny"])


def test_profiles_are_listed_and_shown_without_a_daemon(place: Place) -> None:
    place.put_slots("chat")
    options = (str(place.root), "--runtime", "process")
    names = [own["name"] for own in place.json("profile", "list", *options)["profiles"]]
    assert {"tiny", "embedded", "llama-server-cpu"} <= set(names)
    assert "tiny" in place.hal0("profile", "list", *options).stdout
    done = place.hal0("profile", "show", "tiny", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert any(line.split() == ["probe", "/health", "default"] for line in done.stdout.splitlines())
    assert "slots: chat" in done.stdout


def test_a_profile_that_is_wrong_or_not_there_is_1(place: Place) -> None:
    place.put("p.yaml", "kind: Profile\nname: own\nextends: embeded\n")
    done = place.hal0("profile", "show", "own", str(place.root))
    assert done.returncode == 1
    assert f"{place.root}/p.yaml:3: extends: no Profile 'embeded' (did you mean 'embedded'?)" in done.stdout
    done = place.hal0("profile", "show", "onw", str(place.root))
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean 'own'?" in done.stderr
