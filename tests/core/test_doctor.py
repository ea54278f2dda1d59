"""Every check says that all is well where it is, what is wrong where it is not, and how to mend that."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.core.check import Check, Verdict
from hal0.core.doctor import report, report_json
from hal0.core.facts import Known, Unknown
from hal0.core.findings import (
    Certificate,
    Cgroups,
    Declared,
    Findings,
    Gpu,
    Installed,
    Secret,
    SlotNeeds,
    Trust,
    UnitState,
    Volume,
)
from hal0.core.secretref import SecretRef

GIB = 2**30
DAY = 86400.0
NOW = 1_000_000.0
TEMPLATE = "/etc/systemd/system/hal0-slot@.service"
CHAT = SlotNeeds("chat", 8081, "/m/chat.gguf", Known(value=True), (), runs=True, mend="hal0 model pull chat")
KEY = Secret(SecretRef("file", "/etc/hal0/key"), "upstream cloud", Known(""), "", 0o600)
GOOD = Findings(
    installed=Installed(is_user=False, runtime="systemd", booted=True, who="root"),
    now=NOW,
    systemd=Known("252.39-1~deb12u1"),
    podman=Known("4.3.1"),
    podman_socket=Known(value=True),
    daemon=Known(value=True),
    linger=Known(value=False),
    cgroups=Known(Cgroups(2, frozenset({"cpu", "cpuset", "io", "memory", "pids"}))),
    taken=Known({8080: "hal0 (pid 7)", 8081: "conmon (pid 9)"}),
    volumes=Known((Volume(("models", "state"), "/", 100 * GIB, 400 * GIB),)),
    gpus=Known((Gpu("/dev/dri/renderD128", "amdgpu", "render", usable=True),)),
    driverless=Known(()),
    units=Known({TEMPLATE: UnitState.CURRENT}),
    enabled=Known(value=True),
    declared=Known(Declared("/etc/hal0/manifests", ("127.0.0.1", 8080), (CHAT,))),
    revision=Known("5b0de4f2a1c3"),
    secrets=Known((KEY,)),
    trust=Known((Trust("/etc/ssl/certs", "", 140),)),
    certificates=Known((Certificate("cloud", "api.example.com:443", Known(NOW + 60 * DAY)),)),
)
USER = Installed(is_user=True, runtime="systemd", booted=True, who="eve")
EMBEDDED = Installed(is_user=False, runtime="process", booted=False, who="root")
WARN, FAIL, OK, UNKNOWN = Verdict.WARN, Verdict.FAIL, Verdict.OK, Verdict.UNKNOWN
DOWN = {"daemon": Known(value=False), "enabled": Known(value=False)}


def shown(expires: Any, trouble: str = "") -> Any:
    return Known((Certificate("c", "a:1", expires, trouble),))


def with_slot(**changes: Any) -> Any:
    return Known(Declared("/m", ("127.0.0.1", 8080), (replace(CHAT, **changes),)))


def test_a_model_that_hal0_fetches_is_no_failure() -> None:
    (check,) = of(replace(GOOD, declared=with_slot(model=Known(value=False), is_fetched=True)), "models")
    assert (check.verdict, check.mend) == (OK, "")
    assert check.found == "slot chat: there is no /m/chat.gguf; it is fetched when the slot needs it"


def of(found: Findings, name: str) -> list[Check]:
    return [check for check in report(found) if check.name == name]


def test_a_good_machine_has_a_card_without_a_blemish() -> None:
    card = report(GOOD)
    assert {check.verdict for check in card} == {OK}
    assert not any(check.mend for check in card)
    names = [check.name for check in card]
    assert names == [
        *("systemd", "podman", "podman's socket", "cgroups", "disk", "GPU"),
        *("units", "daemon", "valid", "git", "ports", "models", "secrets", "CA bundle", "upstreams"),
    ]


@pytest.mark.parametrize(
    ("changes", "name", "verdict", "found", "mend"),
    [
        ({"systemd": Known(None)}, "systemd", FAIL, "not run by systemd", "--runtime process"),
        ({"systemd": Known("247.3-7")}, "systemd", FAIL, "247.3-7 is older than 252", "upgrade"),
        ({"systemd": Unknown("no bus")}, "systemd", UNKNOWN, "no bus", "systemctl status"),
        ({"systemd": Unknown("no bus"), "installed": USER}, "systemd", UNKNOWN, "no bus", "systemctl --user status"),
        ({"podman": Known(None)}, "podman", FAIL, "not installed", "apt-get install podman"),
        ({"podman": Known("4.2.9")}, "podman", FAIL, "4.2.9 is older than 4.3", "upgrade podman"),
        ({"podman": Unknown("it hangs")}, "podman", UNKNOWN, "it hangs", "podman version"),
        ({"podman_socket": Known(value=False)}, "podman's socket", FAIL, "nobody", "enable --now podman.socket"),
        ({"podman_socket": Unknown("denied")}, "podman's socket", UNKNOWN, "denied", "podman.socket"),
        ({"cgroups": Known(Cgroups(1, frozenset()))}, "cgroups", FAIL, "version 1", "unified_cgroup_hierarchy=1"),
        ({"cgroups": Known(Cgroups(2, frozenset({"cpu", "pids"})))}, "cgroups", WARN, "no memory", "enable them"),
        ({"cgroups": Known(Cgroups(2, frozenset())), "installed": USER}, "cgroups", WARN, "your units", "Delegate=cpu"),
        ({"installed": USER}, "lingering", WARN, "when you log out", "loginctl enable-linger"),
        ({"volumes": Known((Volume(("images",), "/c", GIB - 1, GIB),))}, "disk", FAIL, "/c", "podman image prune"),
        ({"volumes": Known((Volume(("models",), "/m", 9 * GIB, 20 * GIB),))}, "disk", WARN, "9.0 GiB of 20.0", "free"),
        ({"gpus": Known((Gpu("/dev/kfd", "amdgpu", "render", usable=False),))}, "GPU", WARN, "can't", "usermod"),
        ({"gpus": Known((Gpu("/dev/x", "xe", "", usable=False),))}, "GPU", WARN, "not there", "hand the device on"),
        ({"units": Known({TEMPLATE: UnitState.ABSENT})}, "units", FAIL, "not there", "hal0 install"),
        ({"units": Known({TEMPLATE: UnitState.OLDER})}, "units", WARN, "not as this version", "hal0 install"),
        ({"units": Known({TEMPLATE: UnitState.MASKED})}, "units", FAIL, "masks", "unmask hal0-slot@.service"),
        ({"units": Known({"/u/50-hal0.conf": UnitState.FOREIGN})}, "units", FAIL, "hal0's mark", "slot adopt NAME"),
        ({"enabled": Known(value=False)}, "boot", WARN, "does not start", "systemctl enable hal0.target"),
        ({"daemon": Known(value=False)}, "daemon", FAIL, "does not answer", "systemctl status hal0-api.service"),
        (DOWN, "daemon", WARN, "not run", "hal0 install"),
        ({**DOWN, "installed": EMBEDDED}, "daemon", WARN, "no slot runs", "hal0 serve"),
        ({"daemon": Unknown("denied")}, "daemon", UNKNOWN, "denied", "the daemon's user"),
        ({"declared": Known(Declared("/m", ("", 80), (), 2))}, "valid", FAIL, "2 problems", "hal0 validate /m"),
        ({"declared": Unknown("there is no /m")}, "valid", UNKNOWN, "there is no /m", "hal0 doctor PATH"),
        ({"revision": Known("")}, "git", WARN, "in no repository", "git -C /etc/hal0/manifests init"),
        ({"daemon": Known(value=False)}, "ports", FAIL, "8080 is taken by hal0 (pid 7)", "`listen`"),
        ({"declared": with_slot(runs=False)}, "ports", FAIL, "its 8081 is taken by conmon (pid 9)", "another `port`"),
        ({"declared": with_slot(model=Known(value=False))}, "models", FAIL, "no /m/chat.gguf", "hal0 model pull chat"),
        ({"declared": with_slot(model=Unknown("denied"))}, "models", UNKNOWN, "denied", "slot chat needs it"),
        ({"declared": with_slot(missing_devices=("/dev/kfd",))}, "devices", FAIL, "no /dev/kfd", "the driver"),
        ({"declared": with_slot(missing_devices=("nvidia.com/gpu=all",))}, "devices", FAIL, "CDI", "nvidia-ctk"),
        ({"secrets": Known((replace(KEY, mode=0o644),))}, "secrets", WARN, "mode 0644", "chmod 600 /etc/hal0/key"),
        ({"secrets": Known((replace(KEY, trouble=Known("empty"), hint="Put"),))}, "secrets", FAIL, "empty", "Put"),
        ({"secrets": Known((replace(KEY, trouble=Unknown("denied")),))}, "secrets", UNKNOWN, "denied", ""),
        ({"secrets": Unknown("no answer in 10 s")}, "secrets", UNKNOWN, "no answer in 10 s", ""),
        ({"certificates": Unknown("no answer in 10 s")}, "upstreams", UNKNOWN, "no answer in 10 s", ""),
        ({"trust": Known((Trust("/b", "SSL_CERT_FILE", 0),))}, "CA bundle", FAIL, "/b (by SSL", "correct SSL_CERT"),
        ({"trust": Known((Trust("/b", "", 0),))}, "CA bundle", WARN, "no https upstream", "install ca-certificates"),
        ({"certificates": shown(Known(NOW + DAY))}, "upstreams", WARN, "ends in 1d", "whoever runs it"),
        ({"certificates": shown(Unknown(""), "self-signed")}, "upstreams", FAIL, "self-signed", "CA bundle"),
        ({"certificates": shown(Unknown("refused"))}, "upstreams", UNKNOWN, "refused", "hal0 upstream test c"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_mends_it(
    changes: dict[str, Any], name: str, verdict: Verdict, found: str, mend: str
) -> None:
    (check,) = of(replace(GOOD, **changes), name)
    assert check.verdict is verdict
    assert found in check.found
    assert mend in check.mend


@pytest.mark.parametrize("name", ["systemd", "podman"])
def test_the_embedded_runtime_needs_neither_systemd_nor_podman(name: str) -> None:
    (check,) = of(replace(GOOD, installed=EMBEDDED, systemd=Known(None), podman=Known(None)), name)
    assert (check.verdict, check.mend) == (OK, "")


def test_who_has_systemd_and_no_podman_may_have_meant_containers() -> None:
    (check,) = of(replace(GOOD, installed=replace(EMBEDDED, booted=True), podman=Known(None)), "podman")
    assert (check.verdict, check.mend) == (WARN, "apt-get install podman, where they are to be containers")


def test_a_port_is_nobodys_business_while_its_slot_may_run() -> None:
    for runs in (True, None):
        (check,) = of(replace(GOOD, declared=with_slot(runs=runs)), "ports")
        assert check.verdict is OK


def test_a_display_without_a_driver_is_told_beside_the_gpus() -> None:
    gpu, display = of(replace(GOOD, driverless=Known(("0000:01:00.0 (10de:2684)",))), "GPU")
    assert (gpu.verdict, display.verdict) == (OK, WARN)
    assert "0000:01:00.0 (10de:2684)" in display.found


def test_the_card_as_json_counts_its_verdicts() -> None:
    card = report_json(replace(GOOD, podman=Known(None), enabled=Known(value=False)))
    assert card["counts"] == {"ok": 14, "warn": 1, "fail": 1, "unknown": 0}
    assert json.loads(json.dumps(card)) == card


FACTS = [field.name for field in fields(Findings) if field.name not in {"installed", "now"}]


@given(st.sets(st.sampled_from(FACTS)), st.sampled_from([GOOD.installed, USER, EMBEDDED]))
def test_what_could_not_be_looked_at_is_never_a_failure(unseen: set[str], installed: Installed) -> None:
    hidden: dict[str, Any] = dict.fromkeys(unseen, Unknown("out of sight"))
    seen = replace(GOOD, installed=installed, **hidden)
    verdicts = {check.verdict for check in report(seen)}
    assert FAIL not in verdicts
    assert UNKNOWN not in verdicts or unseen
    assert all(check.found for check in report(seen))
