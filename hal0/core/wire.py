"""Values as JSON: the one shape that the API, ``--json`` and the CLI's own tables share. Versioned."""

from __future__ import annotations

from typing import Any, TypeAlias

from hal0.core.documents import ManifestError
from hal0.core.model import Source, SourceKind
from hal0.core.override import Deviation
from hal0.core.pools import Claim
from hal0.core.schedule import PoolView, Verdict
from hal0.core.spec import unit_name
from hal0.core.status import SlotStatus, Snapshot
from hal0.core.steps import Change, Plan, Reason
from hal0.core.transfer import Transfer
from hal0.core.trial import Rejection, Trial

VERSION = 1
Json: TypeAlias = dict[str, Any]


def snapshot_json(snapshot: Snapshot, *, now: float) -> Json:
    """Return the whole picture. ``now`` is on the loop's clock: ages are in seconds."""
    return {
        "version": VERSION,
        "generation": snapshot.generation,
        "revision": snapshot.revision,
        "runtime": snapshot.runtime,
        "root": snapshot.root,
        "observed_at": snapshot.wall,
        "observe_age_seconds": round(now - snapshot.at, 3),
        "problems": [problem_json(problem) for problem in snapshot.problems],
        "plan": plan_json(snapshot.plan),
        "stale_pins": list(snapshot.stale),
        "pools": [pool_json(pool) for pool in snapshot.pools.values()],
        "slots": [slot_json(slot, now=now) for slot in snapshot.slots.values()],
    }


def slot_json(slot: SlotStatus, *, now: float) -> Json:
    """Return one slot as a list shows it."""
    service = slot.service
    return {
        "name": slot.name,
        "state": slot.state.value,
        "since_seconds": round(now - slot.since, 1),
        "ready": slot.is_ready,
        "type": slot.spec.type.value,
        "model": slot.spec.model,
        "aliases": list(slot.spec.aliases),
        "profile": slot.spec.profile,
        "device": slot.spec.device.value,
        "run": slot.spec.run.value,
        "port": slot.spec.port,
        "context_size": slot.spec.context_size,
        "message": slot.message,
        "drift": list(slot.drift),
        "behind_lock": list(slot.behind_lock),
        "overrides": [override_json(deviation) for deviation in slot.overrides],
        "trial": slot.trial and trial_json(slot.trial),
        "rejected": slot.rejected and rejection_json(slot.rejected),
        "spec_hash": slot.spec_hash,
        "applied_generation": slot.generation,
        "restarts": service.restarts if service else 0,
        "memory_bytes": service.memory if service else None,
        "pool": slot.pool,
        "claim": slot.claim and claim_json(slot.claim),
        "verdict": verdict_json(slot.verdict),
        "conditions": [
            {"type": item.type.value, "status": item.status, "reason": item.reason, "message": item.message}
            for item in slot.conditions
        ],
    }


def claim_json(claim: Claim) -> Json:
    """Return what a slot takes of its pool; ``bytes`` is null where that is not known, and ``how`` says why."""
    return {"bytes": claim.bytes, "source": claim.source.value, "how": claim.how}


def verdict_json(verdict: Verdict) -> Json:
    """Return whether a slot should be up; ``standing`` and ``ground`` are the arbiter's, ``for`` whom it makes room."""
    return {
        "up": verdict.up,
        "why": verdict.why,
        "standing": verdict.standing.value,
        "ground": verdict.ground and verdict.ground.value,
        "for": verdict.beneficiary,
    }


def pool_json(pool: PoolView) -> Json:
    """Return a memory pool; all sizes are bytes, and ``used_bytes`` is null where nobody says."""
    return {
        "name": pool.name,
        "total_bytes": pool.total,
        "claimed_bytes": pool.claimed,
        "used_bytes": pool.used,
    }


def slot_detail_json(slot: SlotStatus, *, now: float, transitions: list[Json], acts: list[Json]) -> Json:
    """Return one slot with everything that is known of it; ``transitions`` and ``acts`` newest first."""
    service, instance = slot.service, slot.instance
    return slot_json(slot, now=now) | {
        "version": VERSION,
        "source": slot.spec.source,
        "image": slot.spec.image,
        "unit": unit_name(slot.name) if slot.spec.image else "",
        "operator_dropins": list(service.operator_dropins) if service else [],
        "service": service
        and {
            "activity": service.activity.value,
            "result": service.result,
            "pid": service.pid,
            "exit_status": service.exit_status,
            "invocation": service.invocation,
        },
        "instance": instance
        and {
            "id": instance.id,
            "running": instance.running,
            "image": instance.image,
            "spec_hash": instance.spec_hash,
            "command": list(instance.command),
        },
        "transitions": transitions,
        "acts": acts,
    }


def plan_json(plan: Plan) -> Json:
    """Return a plan with its reasons and diffs."""
    return {
        "version": VERSION,
        "generation": plan.generation,
        "revision": plan.revision,
        "changes": [change_json(change) for change in plan.changes],
        "overrides": [override_json(deviation) for deviation in plan.overrides],
        "rejections": [rejection_json(rejection) for rejection in plan.rejections],
        "summary": plan.summary(),
    }


def override_json(deviation: Deviation) -> Json:
    """Return what a person asked of a slot beside what its manifest says; ``text`` is the whole of it."""
    own = deviation.override
    return {
        "slot": own.slot,
        "aspect": own.aspect.value,
        "declared": deviation.declared,
        "value": own.value,
        "who": own.who,
        "at": own.at,
        "until": own.until,
        "void": deviation.void,
        "text": str(deviation),
    }


def trial_json(trial: Trial) -> Json:
    """Return a spec that has to prove itself."""
    return {"spec_hash": trial.spec_hash, "who": trial.who, "began": trial.began, "text": str(trial)}


def rejection_json(rejection: Rejection) -> Json:
    """Return a spec that the manifests want and that is not tried again; ``text`` is the whole of it."""
    return {
        "slot": rejection.slot,
        "spec_hash": rejection.spec_hash,
        "why": rejection.why,
        "at": rejection.at,
        "text": str(rejection),
    }


def change_json(change: Change) -> Json:
    """Return one change. ``drift``: all of it happened outside hal0."""
    return {
        "slot": change.slot,
        "action": change.action.value,
        "symbol": change.action.symbol,
        "drift": change.is_drift,
        "reasons": [reason_json(reason) for reason in change.reasons],
        "steps": [step.kind.name.lower() for step in change.steps],
        "diff": change.diff(),
        "claim": change.claim and claim_json(change.claim),
        "pool": change.pool,
    }


def reason_json(reason: Reason) -> Json:
    """Return one reason: a field with what it was and what it becomes."""
    return {"field": reason.field, "before": reason.before, "after": reason.after, "drift": reason.drift}


def source_json(source: Source) -> Json | None:
    """Return where a model comes from, as its manifest says it; None where it is put there by hand."""
    match source.kind:
        case SourceKind.URL:
            return {"url": source.url.partition("?")[0]}  # what follows may be a key
        case SourceKind.HUB:
            said = {"repo": source.repo, "file": source.file, "revision": source.revision}
            return {key: value for key, value in said.items() if value}
    return None


def transfer_json(transfer: Transfer) -> Json:
    """Return how far a model is on its way: bytes of the file at hand, and bytes a second; null where not known."""
    return {
        "model": transfer.model,
        "phase": "queued" if transfer.queued else transfer.progress.phase.value,
        "file": transfer.file,
        "files": transfer.files,
        "done_bytes": transfer.progress.done,
        "total_bytes": transfer.progress.total,
        "rate": None if transfer.rate is None else round(transfer.rate),
    }


def problem_json(problem: ManifestError) -> Json:
    """Return one thing that is wrong with the manifests; ``text`` is the whole of it, as editors read it."""
    return {
        "file": problem.file,
        "line": problem.line,
        "key": problem.key,
        "message": problem.message,
        "hint": problem.hint,
        "kind": problem.kind,
        "name": problem.name,
        "text": str(problem),
    }
