"""Labels are the user's own words: no cell of a table becomes a formula, none of a page a tag."""

import csv
import io

import pytest

from raysoft.comparison.tables import TABLE_CSV, TABLE_MD, inert, write_tables
from tests.comparison_folders import make_comparison, read


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "- soft"])
def test_no_text_is_a_formula(text):
    assert inert(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-1.5", "+2", "-1e-3", "soft", "a=b", ""])
def test_numbers_and_other_texts_stay(text):
    assert inert(text) == text


def test_tables_of_odd_labels(tmp_path):
    labels = ("ideal", "=1+1", "<script>alert(1)</script>")
    make_comparison(tmp_path, labels=labels)
    data = read(tmp_path)
    data["arms"][1]["overrides"] = ["-x=1"]
    data["margin_bits_per_byte_relative"] = 0.02
    for pair in data["pairs"]:
        pair |= {key: pair.get(key) for key in ("p_noninferior", "p_holm", "p_equivalent", "equivalent")}
        pair["difference"] = -0.015
    write_tables(data, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / TABLE_CSV).read_text())))
    assert [row["arm"] for row in rows] == ["ideal", "'=1+1", labels[2]]
    assert rows[1]["overrides"] == "'-x=1"
    assert {row["accuracy_difference"] for row in rows} == {"", "-0.015"}  # numbers stay numbers
    page = (tmp_path / TABLE_MD).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "'=1+1" not in page  # a quote is for spreadsheets
