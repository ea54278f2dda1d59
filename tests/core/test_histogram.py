from __future__ import annotations

from hal0.core.histogram import Histogram


def test_values_are_counted_in_each_bucket_that_holds_them() -> None:
    histogram = Histogram.of((0.5, 1.0))
    for value in (0.2, 0.5, 0.7, 3.0):
        histogram.observe(value)
    assert histogram.buckets() == [("0.5", 2), ("1.0", 3), ("+Inf", 4)]
    assert histogram.total == 4.4


def test_histograms_share_nothing() -> None:
    bounds = (1.0,)
    Histogram.of(bounds).observe(0.1)
    assert Histogram.of(bounds).buckets() == [("1.0", 0), ("+Inf", 0)]
