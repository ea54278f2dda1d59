"""Where a request would go and why, as JSON: what ``hal0 route`` and the API tell, and nothing is sent."""

from __future__ import annotations

from hal0.core.endpoints import ENDPOINTS, Endpoint
from hal0.core.routes import Decision, Routes, Target
from hal0.core.validate import did_you_mean
from hal0.core.wire import VERSION, Json
from hal0.errors import UsageError


def endpoint_of(path: str) -> Endpoint:
    """Return the endpoint of a path, with ``/v1`` or without. Raises ``UsageError`` for one that is not routed."""
    endpoint = ENDPOINTS.get(path) or ENDPOINTS.get("/v1/" + path.strip("/"))
    if endpoint is None:
        hint = did_you_mean(path, ENDPOINTS) or "one of " + ", ".join(ENDPOINTS)
        raise UsageError(f"{path!r} is no path that hal0 routes", hint=hint)
    return endpoint


def explain(table: Routes, model: str | None, endpoint: Endpoint) -> Json:
    """Return the decision on a request, and those on its fallbacks."""
    decision = table.decide(model, endpoint)
    names = decision.target.fallback if decision.target else ()
    return {
        "version": VERSION,
        "model": model,
        "path": endpoint.path,
        **_decision(decision, endpoint),
        "fallback": [{"model": name, **_decision(table.decide(name, endpoint), endpoint)} for name in names],
    }


def _decision(decision: Decision, endpoint: Endpoint) -> Json:
    return {
        "rule": decision.rule.value,
        "reason": decision.reason,
        "code": decision.code,
        "ask_first": [upstream.name for upstream in decision.cold],
        "target": _target(decision.target, endpoint) if decision.target else None,
    }


def _target(target: Target, endpoint: Endpoint) -> Json:
    if target.upstream:
        url = target.upstream.base_url + endpoint.path.removeprefix("/v1")
        return {"kind": "upstream", "name": target.name, "model": target.model, "url": url}
    assert target.slot is not None  # noqa: S101  (it is one of the two)
    spec = target.slot.serves
    return {
        "kind": "slot",
        "name": spec.name,
        "model": target.model,
        "url": f"http://127.0.0.1:{spec.port}{spec.serving.paths.get(endpoint.path, endpoint.path)}",
        "state": target.slot.state.value,
        "ready": target.slot.state.is_dispatchable,
    }
