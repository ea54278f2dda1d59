"""Engines that may hang while their service runs: when one has to prove itself, and when a proof is void.

A proof waits behind the requests that an engine works on. So where the probe answers none is asked for, and none
counts, while there are any: the engine may only be busy with a long answer.
"""

from __future__ import annotations

from hal0.core.phase import PROBE_PATIENCE
from hal0.core.proof import Proof, ask_of
from hal0.core.state import SlotState
from hal0.core.status import SlotStatus

PROVE_AGAIN = 60.0
"""Seconds until an engine that hangs behind a probe that answers is asked again, where it is left as it is."""


def is_due(slot: SlotStatus, proof: Proof | None, serving: int, now: float, *, suspected: bool) -> bool:
    """Return whether a slot's engine has to prove itself now.

    ``proof`` is its last one, ``serving`` counts the requests at it. ``suspected``: one ended there without a byte.
    """
    is_askable = ask_of(slot.spec) is not None
    if slot.failing is None:
        is_wanted = (suspected and slot.state.is_dispatchable) or _is_overdue(slot, proof, now)
        return is_askable and not serving and is_wanted
    if not slot.was_ready or (proof and proof.invocation == slot.run and proof.at > slot.failing.first):
        return False
    if not is_askable:  # its probe is all that there is, and one request may hold that up
        return slot.failing.is_lasting and not serving
    return slot.failing.last - slot.failing.first >= PROBE_PATIENCE


def is_void(slot: SlotStatus, proof: Proof, serving: int) -> bool:
    """Return whether a proof that an engine does not work says nothing any more.

    A probe that answers again speaks for the engine, and so does a request that was let in to it.
    """
    if not proof.is_refuted:
        return False
    return proof.invocation != slot.run or (serving > 0 if proof.suspected else slot.failing is None)


def _is_overdue(slot: SlotStatus, proof: Proof | None, now: float) -> bool:
    return slot.state is SlotState.ERROR and proof is not None and proof.is_refuted and now - proof.at >= PROVE_AGAIN
