"""The report card of a machine. Pure: the same findings give the same card."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from hal0.core.check import Check, Verdict
from hal0.core.check_config import config_checks
from hal0.core.check_machine import machine_checks
from hal0.core.findings import Findings
from hal0.core.wire import VERSION, Json


def report(found: Findings) -> tuple[Check, ...]:
    """Return every check, in the order in which one would mend them."""
    return (*machine_checks(found), *config_checks(found))


def report_json(found: Findings) -> Json:
    """Return the card as the command line prints it, with how many checks have each verdict."""
    checks = report(found)
    counts = Counter(check.verdict for check in checks)
    return {
        "version": VERSION,
        "runtime": found.installed.runtime,
        "scope": "user" if found.installed.is_user else "system",
        "checks": [asdict(check) for check in checks],
        "counts": {verdict.value: counts[verdict] for verdict in Verdict},
    }
