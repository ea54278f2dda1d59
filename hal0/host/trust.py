"""Whom https upstreams are trusted by: the bundles of authorities, and what an upstream shows of itself."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from hal0.core.facts import Known, Unknown
from hal0.core.findings import Certificate, Trust

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def bundles() -> tuple[Trust, ...]:
    """Return the bundle that this process trusts, and others that the environment names."""
    return tuple(dict.fromkeys(_bundles()))


def _bundles() -> Iterator[Trust]:
    chosen = {path: name for name in reversed(_VARIABLES) if (path := os.environ.get(name))}
    if not os.environ.get(_VARIABLES[0]):
        places = ssl.get_default_verify_paths()
        bundle = Path(places.cafile or places.openssl_cafile)
        yield Trust(str(bundle if bundle.is_file() else bundle.parent), "", _count(bundle) or _hashed(places.capath))
    yield from (Trust(path, name, _count(Path(path))) for path, name in reversed(chosen.items()))


def _count(path: Path) -> int:
    """Return how many certificates can be read from a bundle, or from a folder of them."""
    if path.is_dir():
        return _hashed(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except OSError:  # ssl's own errors are such, too
        return 0
    return len(context.get_ca_certs())


def _hashed(folder: str | None) -> int:
    return sum(1 for _ in Path(folder).glob("*.[0-9]")) if folder else 0


def certificate(upstream: str, base_url: str, limit: float) -> Certificate:
    """Shake hands with an https upstream, and send it nothing. ``limit`` is seconds. Never raises for what it does."""
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or 443
    address = f"{host}:{port}"
    try:
        with (
            socket.create_connection((host, port), timeout=limit) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secured,
        ):
            shown = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return Certificate(upstream, address, Unknown("not trusted"), error.verify_message)
    except OSError as error:
        return Certificate(upstream, address, Unknown(f"no connection: {error.strerror or error}"))
    return Certificate(upstream, address, Known(float(ssl.cert_time_to_seconds(str(shown["notAfter"])))))
