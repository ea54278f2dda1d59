"""What is measured, in order, and the command line of it."""

from __future__ import annotations

import argparse
import compileall
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import live, planning, relay, report, startup
from bench.measure import Row, Skipped
from bench.report import Outcome

import hal0


@dataclass(frozen=True)
class Section:
    """A part of the benchmarks that can be run by itself."""

    name: str
    title: str
    rows: Callable[[], Iterator[Row]]


SECTIONS = (
    Section("plan", f"Planning {planning.SLOTS:,} slots", planning.rows),
    Section("startup", "Start-up of the command line, beside a bare typer application", startup.rows),
    Section("host", f"A real host: systemd and podman, {live.SLOTS} slots", live.rows),
    Section("relay", "/v1, one connection, beside asking the engine itself", relay.rows),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. The exit code says whether a section broke, not whether the aims were met."""
    parser = argparse.ArgumentParser(prog="run.py", description="hal0's benchmarks: medians beside their aims.")
    names = [section.name for section in SECTIONS]
    parser.add_argument("--only", action="append", choices=names, help="only this section; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there, too")
    wanted = parser.parse_args(argv)
    _compile()
    report.say(f"hal0 {hal0.__version__}: {report.machine()}")
    outcomes = [_run(section) for section in SECTIONS if not wanted.only or section.name in wanted.only]
    for line in report.summary(outcomes):
        report.say(line)
    if wanted.json:
        report.write_json(wanted.json, outcomes)
    return int(any(outcome.broke for outcome in outcomes))


def _compile() -> None:
    """Compile hal0 as installing it does: a start must not pay for what no user pays for."""
    compileall.compile_dir(Path(hal0.__file__).parent, quiet=1)


def _run(section: Section) -> Outcome:
    begun, rows, skipped, broke = time.monotonic(), list[Row](), "", ""
    report.say(report.heading(section.title))
    try:
        for row in section.rows():
            rows.append(row)
            report.say(report.line(row))
    except Skipped as reason:
        skipped = str(reason)
        report.say(f"  skipped: {skipped}")
    except Exception as error:  # noqa: BLE001 - the other sections are worth having
        broke = repr(error)
        report.say(f"  broke: {''.join(traceback.format_exception(error))}")
    return Outcome(section.name, tuple(rows), skipped, broke, time.monotonic() - begun)
