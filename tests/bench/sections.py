"""What is measured, in order, and the command line of it."""

from __future__ import annotations

import argparse
import compileall
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import downloads, lifecycle, live, planning, report, startup
from bench.measure import Row, Rows, Skipped
from bench.proxy import section as proxy
from bench.proxy.scenarios import Effort
from bench.report import Outcome

import hal0


@dataclass(frozen=True)
class Section:
    """A part of the benchmarks that can be run by itself."""

    name: str
    title: str
    rows: Callable[[], Rows]


def sections(effort: Effort) -> tuple[Section, ...]:
    """Return all of them. ``effort`` is that of the data plane."""
    return (
        Section("plan", f"Planning {planning.SLOTS:,} slots", planning.rows),
        Section("startup", "Start-up of the command line, beside a bare typer application", startup.rows),
        Section("downloads", "A download beside curl's, and the event loop meanwhile", downloads.rows),
        Section("host", f"A real host: systemd and podman, {live.SLOTS} slots", live.rows),
        Section("lifecycle", "Wake, swap and heal: a real engine and a real model on a real host", lifecycle.rows),
        Section("proxy", "/v1 beside nginx: a proxy's core, a mock engine", partial(proxy.rows, effort)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. The exit code says whether a section broke, not whether the aims were met."""
    wanted = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _compile()
    report.say(f"hal0 {hal0.__version__}: {report.machine()}")
    found = sections(Effort(wanted.rounds, wanted.seconds, tuple(wanted.scenario)))
    outcomes = [_run(section) for section in found if not wanted.only or section.name in wanted.only]
    for line in report.summary(outcomes):
        report.say(line)
    if wanted.json:
        report.write_json(wanted.json, outcomes)
    return int(any(outcome.broke for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="hal0's benchmarks: medians beside their aims.")
    names = [section.name for section in sections(Effort())]
    parser.add_argument("--only", action="append", choices=names, help="only this section; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there, too")
    group = parser.add_argument_group("the data plane (proxy)")
    group.add_argument("--rounds", type=int, default=Effort.rounds, help="of each scenario (%(default)s)")
    group.add_argument("--seconds", type=float, default=Effort.seconds, help="of each measurement (%(default)s)")
    group.add_argument(
        "--scenario", action="append", default=[], choices=proxy.NAMES, help="only this one; may be repeated"
    )
    return parser


def _compile() -> None:
    """Compile hal0 as installing it does: a start must not pay for what no user pays for."""
    compileall.compile_dir(Path(hal0.__file__).parent, quiet=1)


def _run(section: Section) -> Outcome:
    begun, rows, skipped, broke = time.monotonic(), list[Row](), "", ""
    report.say(report.heading(section.title))
    try:
        with closing(section.rows()) as found:
            for row in found:
                rows.append(row)
                report.say(report.line(row))
    except Skipped as reason:
        skipped = str(reason)
        report.say(f"  skipped: {skipped}")
    except Exception as error:  # noqa: BLE001 - the other sections are worth having
        broke = repr(error)
        report.say(f"  broke: {''.join(traceback.format_exception(error))}")
    return Outcome(section.name, tuple(rows), skipped, broke, time.monotonic() - begun)
