from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hal0.core.model import Phase, Progress
from hal0.core.transfer import Transfer

GI, MI = 2**30, 2**20
SIZES = st.integers(0, 2**45)


def test_a_transfer_says_how_far_it_is_and_how_fast() -> None:
    begun = Transfer("qwen3-8b")
    assert str(begun) == "fetching qwen3-8b"
    first = begun.at(1, Progress(3 * GI, 5 * GI), 10.0)
    assert str(first) == "fetching qwen3-8b: 3.0 of 5.0 GiB"
    assert str(first.at(1, Progress(3 * GI + 82 * MI, 5 * GI), 12.0)) == "fetching qwen3-8b: 3.1 of 5.0 GiB, 41.0 MiB/s"


def test_what_nobody_knows_the_size_of_is_told_without() -> None:
    assert str(Transfer("m").at(1, Progress(5 * MI, None), 0.0)) == "fetching m: 5.0 MiB"
    assert str(Transfer("m").at(1, Progress(0, None), 0.0)) == "fetching m"


def test_units_are_told_apart() -> None:
    assert str(Transfer("m").at(1, Progress(5 * MI, 2 * GI), 0.0)) == "fetching m: 5.0 MiB of 2.0 GiB"


def test_parts_and_phases_and_the_line_are_told() -> None:
    checking = Transfer("m", files=3).at(2, Progress(MI, 2 * MI, Phase.CHECKING), 0.0)
    assert str(checking) == "checking what is there of m, file 2 of 3: 1.0 of 2.0 MiB"
    assert str(Transfer("m", queued=True)) == "m is fetched after others"


def test_a_rate_begins_anew_with_each_file_and_phase() -> None:
    one = Transfer("m", files=2).at(1, Progress(0, 9), 0.0).at(1, Progress(8, 9), 2.0)
    assert one.rate == 4
    assert one.at(2, Progress(1, 9), 3.0).rate is None
    assert one.at(1, Progress(8, 9, Phase.CHECKING), 3.0).rate is None


@given(st.lists(st.tuples(SIZES, st.floats(0.0, 100.0)), max_size=20))
def test_whatever_is_told_a_rate_is_never_negative(told: list[tuple[int, float]]) -> None:
    transfer, now = Transfer("m"), 0.0
    for done, seconds in told:
        now += seconds
        transfer = transfer.at(1, Progress(done, None), now)
        assert transfer.rate is None or transfer.rate >= 0
        assert transfer.progress.done == done
        assert str(transfer).startswith("fetching m")
