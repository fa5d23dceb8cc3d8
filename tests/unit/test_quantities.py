"""The table of numbers: every number that a file holds is in it, and nobody keeps a list of their own."""

import ast
import math
from dataclasses import fields
from pathlib import Path

import pytest

import raysoft
from raysoft.comparison.readings import METRICS, VALUE_KEYS
from raysoft.quantities import MINUS, TABLE, keys_in, number, quantity
from raysoft.rundir.summary import SUMMARY_KEYS
from raysoft.types import RoundRecord

PACKAGE = Path(raysoft.__file__).parent


def test_keys_are_unique_and_stand_where_the_files_have_them():
    assert len({one.key for one in TABLE}) == len(TABLE)
    texts = {"adapter_sha256", "config_hash", "identity", "status", "metrics"}
    assert set(keys_in("summary")) == set(SUMMARY_KEYS) - texts
    assert set(keys_in("record")) <= {item.name for item in fields(RoundRecord)}
    assert set(VALUE_KEYS) == set(keys_in("row")) | set(keys_in("arm"))
    assert set(METRICS) <= {one.key for one in TABLE}


def test_the_same_quantity_has_one_factor_unit_and_direction_wherever_it_stands():
    """A record, the summary and the row of an arm call the same thing by other keys."""
    for same in (
        ("round_latency_s", "mean_round_latency_s", "mean_latency_s"),
        ("uplink_bits", "uplink_bits_total"),
        ("energy_j", "energy_j_total"),
        ("kept_fraction_mean", "kept_fraction"),
        ("simulated_time_s", "simulated_s"),
        ("accuracy", "final_accuracy", "equal_accuracy"),
        ("bits_per_byte", "final_bits_per_byte"),
        ("uplink_share_of_dense32", "share_dense32"),
        ("uplink_share_of_dense_same_bits", "share_dense_same_bits"),
    ):
        looks = {(quantity(key).unit, quantity(key).factor, quantity(key).digits, quantity(key).better) for key in same}
        assert len(looks) == 1, same
    bits = 12_345_678
    assert quantity("uplink_bits").text(bits) == quantity("uplink_mb").text(bits / 8e6) == "1.54"


@pytest.mark.parametrize("key", [one.key for one in TABLE])
def test_every_number_can_be_written(key):
    one = quantity(key)
    assert one.heading(equal="bits")
    assert "{" not in one.heading(equal="bits") + one.narrow_heading(equal="bits", accuracy="accuracy")
    for value in (0.123456, -3.0):
        shown = float(one.text(value).replace(MINUS, "-"))
        assert math.isclose(shown, one.factor * value, abs_tol=0.5 * 10.0**-one.digits + 1e-12)
    assert one.text(None) == one.cell(None, None) == "–"


def test_a_number_of_a_plug_in_is_judged_by_its_name():
    assert quantity("my_error").lower_is_better
    assert not quantity("my_score").lower_is_better
    assert quantity("my_score").heading() == "my_score"
    assert quantity("{odd} 100 %").heading() == "{odd} 100 %"
    assert number(-1.0, digits=1, signed=True) == f"{MINUS}1.0"


def columns_of_their_own(tree):
    """Literal tuples such as ("latency s", "mean_latency_s", 1.0, 3): a key of the table beside a factor."""
    keys = {one.key for one in TABLE}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Tuple, ast.List, ast.Call)):
            items = node.args if isinstance(node, ast.Call) else node.elts
            values = [item.value for item in items if isinstance(item, ast.Constant)]
            if keys & {v for v in values if isinstance(v, str)} and any(isinstance(v, float) for v in values):
                yield node.lineno


def test_nobody_keeps_headings_and_factors_of_their_own():
    own = [path for path in PACKAGE.rglob("*.py") if path.name != "quantities.py"]
    own += (PACKAGE.parent / "studies").glob("*.py")
    assert [(path.name, line) for path in own for line in columns_of_their_own(ast.parse(path.read_text()))] == []
    found = columns_of_their_own(ast.parse('X = (("latency s", "mean_latency_s", 1.0, 3), ("a", "b", 1.0))'))
    assert list(found) == [1]
