"""Figures of a round made of what codecs say of their updates."""

import numpy as np
import pytest

from raysoft.codecs.measure.coverage import coverage, mean_stats, sent_counts


def test_components_are_counted_over_the_codecs_that_tell_them():
    told = [{"sent": np.array([True, False, True])}, {}, {"sent": np.array([True, False, False])}]
    assert sent_counts(told).tolist() == [2, 0, 1]
    assert sent_counts([{}, {}]) is None


@pytest.mark.parametrize(("counts", "entropy", "never"), [([3, 3, 3, 3], 1.0, 0.0), ([6, 0, 0, 0], 0.0, 0.75)])
def test_entropy_is_one_for_an_even_selection_and_zero_for_a_single_component(counts, entropy, never):
    found = coverage(np.array(counts))
    assert found == {"components_never_sent": never, "selection_entropy": pytest.approx(entropy)}


def test_where_nothing_was_sent_there_is_no_coverage():
    assert coverage(None) == coverage(np.zeros(4, dtype=int)) == {}
    assert coverage(np.array([2]))["selection_entropy"] == 1.0, "one component cannot be chosen unevenly"


def test_every_number_is_averaged_over_those_who_have_it_and_named_as_the_codecs():
    told = [{"sent": np.ones(2), "failed": np.array(1.0), "memory_residual": np.array(4.0)}, {"failed": 3}, {}]
    assert mean_stats(told) == {"codec_failed": 2.0, "memory_residual": 4.0}
    assert mean_stats([{"a": np.nan}, {"a": 1.0, "b": np.inf}]) == {}, "null would be no better"
