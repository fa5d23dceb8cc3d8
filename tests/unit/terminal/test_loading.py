"""A target that names a sweep, and an image model where a text model is meant: one sentence each."""

from __future__ import annotations

import pytest

from raysoft.config.presets import preset_names
from raysoft.errors import ConfigError
from raysoft.sweep.shipped import shipped_names
from raysoft.terminal.loading import load_config


def test_the_name_of_a_sweep_is_told_from_a_configuration(monkeypatch, tmp_path):
    assert not set(shipped_names()) & set(preset_names())
    for name in shipped_names():
        with pytest.raises(ConfigError, match=f"'{name}' is a sweep, not a configuration: `raysoft tune {name} --dry-"):
            load_config(name)
    with pytest.raises(ConfigError, match="did you mean 'soft'"):
        load_config("softt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rank").write_text("base: soft\nrounds: 3\n")
    assert load_config("rank").rounds == 3  # a file of that name is what is meant, as ever


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_an_image_model_for_a_task_of_texts_is_one_sentence(task, tmp_path):
    from raysoft.models.tasks import build_task

    (tmp_path / "reviews.csv").write_text("text,label\n" + "fine,good\nbroken,bad\n" * 60)
    words = [f"data.task={task}", f"data.path={tmp_path / 'reviews.csv'}", "data.clients=4", "cohort.size=2"]
    config = load_config("soft", words)
    said = f"^model.name: 'embedded/vit-digits' is an image model, data.task={task} needs a text model such as"
    with pytest.raises(ConfigError, match=said):
        build_task(config)
