"""Arms of a comparison from Python: lists as on the command line, or labels and what they run."""

import pytest

from raysoft.api.comparisons import arms_of
from raysoft.comparison.arms import parse_arms
from raysoft.errors import ConfigError


def test_both_forms_give_the_same_arms():
    line = parse_arms(["soft", "4 bit: soft codec.bits_per_value=4", "rounds=3", "cohort.size=5"])
    assert arms_of(["soft", "4 bit: soft codec.bits_per_value=4", "rounds=3"], ["cohort.size=5"]) == line
    named = arms_of(
        {"soft": "soft", "4 bit": ("soft", {"codec": {"bits_per_value": 4}})}, ["rounds=3", "cohort.size=5"]
    )
    assert named == line
    assert named[1].config(7).seed == 7


def test_a_setting_with_blanks_stays_one():
    (arm,) = arms_of(["soft"], ['data.path="a b x=c"'])
    assert arm.shared == ('data.path="a b x=c"',)


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        ([], "arms: give at least one"),
        ({}, "arms: give at least one"),
        ("soft", "arms: must be a list or a mapping of labels to presets, got the text 'soft'"),
        (["soft", "soft"], "arms: two arms are called 'soft'"),
        ({"": "soft"}, "arm: '': the label"),
        ({"a\nb": "soft"}, "the label before ':' must have"),
        ({"a": ("soft", "seed=3")}, "seed: is set by --seeds"),
        ({"a": ("soft", 3)}, "settings: are key=value words"),
        ({"a": 3}, "arm 'a': must begin with a preset or a file, got 3"),
        ([3], "arms: are texts such as 'soft rounds=3'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arms, sentence):
    with pytest.raises(ConfigError, match=sentence):
        arms_of(arms, [])


def test_settings_of_all_arms_are_checked_too():
    with pytest.raises(ConfigError, match="executor: is set by the comparison"):
        arms_of({"a": "soft"}, ["executor=inline"])
