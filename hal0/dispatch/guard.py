"""Who may ask: the keys of /v1, where the Host manifest names some."""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest

from hal0.core.endpoints import Endpoint
from hal0.dispatch.call import Call
from hal0.dispatch.envelope import Refusal
from hal0.host.secrets import SecretMissing, Secrets
from hal0.loop.reconcile import Reconciler


@dataclass
class Guard:
    """Checks requests before anything else is done for them. The unix socket needs no key: only its owner opens it."""

    reconciler: Reconciler
    secrets: Secrets = field(default_factory=Secrets)

    def check(self, call: Call, endpoint: Endpoint) -> None:
        """Raise ``Refusal`` for another method, and without a key where keys are asked for."""
        if call.head.method != "POST":
            raise Refusal(405, "route.method_not_allowed", f"{endpoint.path} takes POST, not {call.head.method}")
        ref = self.reconciler.snapshot.host.api_keys
        if ref is None or call.client.is_local:
            return
        try:
            known = self.secrets.lines(ref)
        except SecretMissing as error:  # not to be retried: it takes a person to mend it
            raise Refusal(503, "auth.no_keys", f"hal0 can't read its keys: {error}") from None
        said = _key(call)
        if not sum(compare_digest(said, key.encode()) for key in known):  # all of them: time must tell nothing
            message = "this needs a key of hal0: send it as `Authorization: Bearer KEY`"
            raise Refusal(401, "auth.invalid_key", message)


def _key(call: Call) -> bytes:
    kind, _, key = call.header(b"authorization").partition(b" ")
    return key.strip() if kind.lower() == b"bearer" else call.header(b"x-api-key")
