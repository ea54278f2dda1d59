from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import FACTS, MODEL, desired, slots

from hal0.core.definition import stamp
from hal0.core.facts import Fact, Known, Unknown
from hal0.core.observed import Definition, Observed, SlotObservation
from hal0.core.rebuild import ports_found
from hal0.core.spec import Desired

PROCESS = replace(FACTS, runtime="process")
PORTS = st.integers(8081, 8099)


def custom(*args: str, port: int) -> str:
    words = ", ".join(f'"{arg}"' for arg in args)
    profile = f"---\nkind: Profile\nname: p\nengine: custom\ncommand: [serve]\nargs: [{words}]\n"
    return MODEL + profile + f"---\nkind: Slot\nname: a\nmodel: m\nprofile: p\nport: {port}\n"


def written(found: Desired, *, owner: str = "a") -> Fact[Definition | None]:
    """Return a slot's definition as it lies on the host."""
    slot = found.slots["a"]
    return Known(Definition("there", stamp(slot.body, slot=owner, spec_hash=slot.spec_hash, generation=1)))


def ports(definition: Fact[Definition | None], *remembered: str) -> dict[str, int]:
    none = Unknown("not looked at")
    seen = Observed({"a": SlotObservation(definition=definition, service=none, instance=none, image=none)})
    return dict(ports_found(desired(slots("a")), seen, remembered))


@given(PORTS)
def test_the_port_of_a_drop_in_is_read_back(port: int) -> None:
    assert ports(written(desired(slots("a", port=port, context_size=8090)))) == {"a": port}


@given(PORTS)
def test_the_port_of_the_embedded_engine_is_read_back(port: int) -> None:
    found = desired(slots("a", port=port, context_size=8090), facts=PROCESS)
    assert ports(written(found)) == {"a": port}


@given(PORTS, st.sampled_from([("--port={port}",), ("{port}", "{name}"), ("--at", "127.0.0.1:{port}", "-c", "4096")]))
def test_the_port_of_a_command_of_the_operators_own_is_read_back(port: int, args: tuple[str, ...]) -> None:
    assert ports(written(desired(custom(*args, port=port), facts=PROCESS))) == {"a": port}


def test_of_two_numbers_that_could_be_the_port_none_is_taken() -> None:
    found = desired(custom("{port}", "8099", port=8085), facts=PROCESS)
    assert ports(written(found)) == {}


@pytest.mark.parametrize(
    "definition",
    [
        Unknown("the disk does not answer"),
        Known(None),
        Known(Definition("there", "--publish=127.0.0.1:8085:8080")),
        written(desired(slots("a", port=8085)), owner="b"),
    ],
)
def test_nothing_is_read_from_what_is_not_hal0s_or_cant_be_seen(definition: Fact[Definition | None]) -> None:
    assert ports(definition) == {}


def test_what_the_store_remembers_is_not_read_back() -> None:
    assert ports(written(desired(slots("a", port=8085))), "a") == {}
