"""The six domains of the digits: fixed looks, no image in two of them, a client each, none that the base knows."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest

from raysoft.config.presets import load_config
from raysoft.data import digit_domains, digits
from raysoft.data.digit_domains import DOMAINS, domain_of
from raysoft.data.partition import build_partition
from raysoft.data.raw import split
from raysoft.models.tasks import build_task
from raysoft.rng import Rng
from tests.coordinators import coordinator
from tests.trajectories import recorded_base


@pytest.fixture(scope="module")
def plain():
    samples = digits.read().train
    return np.stack(samples.content), np.asarray(samples.labels)


@pytest.fixture(scope="module")
def task():
    return digit_domains.read()


def test_the_images_are_these_very_ones(task):
    """The samples of version 1: whoever changes a bit of them raises the version (config/identity.py)."""
    found = hashlib.blake2b(np.stack(task.train.content).tobytes(), digest_size=8).hexdigest()
    assert found == "fa263eb04662ccd7"


@pytest.mark.parametrize("name", DOMAINS)
def test_a_look_is_fixed_and_stays_an_image(name, plain):
    images_N, _ = plain
    before = images_N.copy()
    look = DOMAINS[name](images_N)
    assert (look.shape, look.dtype) == (images_N.shape, np.uint8)
    assert np.array_equal(look, DOMAINS[name](images_N))
    assert np.array_equal(images_N, before)
    assert (look != images_N).any(axis=(1, 2)).all()


def test_the_looks_of_an_image_are_all_different(plain):
    images_N, _ = plain
    looks = {"digits": images_N, **{name: look(images_N) for name, look in DOMAINS.items()}}
    for one, two in combinations(looks, 2):
        apart_N = np.abs(looks[one].astype(int) - looks[two].astype(int)).mean(axis=(1, 2))
        assert apart_N.mean() > 25, (one, two)  # of 255, of a pixel
        assert apart_N.min() > 0, (one, two)


def test_looks_of_a_bar():
    """An upright bar of two pixels: where each look puts its ink."""
    bar = np.zeros((1, 8, 8), dtype=np.uint8)
    bar[0, 1:7, 3:5] = 255
    look = {name: transform(bar)[0] for name, transform in DOMAINS.items()}
    assert np.array_equal(look["inverted"], 255 - bar[0])
    wide = np.zeros((8, 8), dtype=np.uint8)
    wide[1:, 3:6] = 255
    wide[0] = 0
    assert np.array_equal(look["thick"], wide)
    # Rows 1 and 6 are 2.5 from the middle: sheared by 1.5 columns, the top to the left.
    assert look["sheared"][1].tolist() == [0, 128, 255, 128, 0, 0, 0, 0]
    assert look["sheared"][6].tolist() == [0, 0, 0, 0, 128, 255, 128, 0]
    # 40 % of 255 above the background, at 30 %; the bar's inner pixels next to one column without ink.
    assert (int(look["faded"][0, 0]), int(look["faded"][4, 3])) == (76, 76 + 255 * 12 // 40)
    assert np.array_equal(look["cluttered"][bar[0] > 0], bar[0][bar[0] > 0])
    assert 0 < np.count_nonzero(look["cluttered"]) - 12 <= 12


def test_rotation_is_that_of_scipy(plain):
    """By 25 degrees clockwise as one looks at it, about the middle; a pixel may be rounded the other way."""
    from scipy import ndimage

    images_N, _ = plain
    turned = ndimage.rotate(
        images_N.astype(float), -25, axes=(1, 2), reshape=False, order=1, mode="grid-constant", prefilter=False
    )
    assert np.abs(DOMAINS["rotated"](images_N) - turned).max() < 0.51
    upright = np.zeros((1, 8, 8), dtype=np.uint8)
    upright[0, :, 3:5] = 255
    rows = DOMAINS["rotated"](upright)[0].argmax(axis=1)
    assert rows[1] > 4 > rows[6]


def test_clutter_is_each_images_own(plain):
    images_N, _ = plain
    laid = DOMAINS["cluttered"](np.zeros_like(images_N))
    assert set(np.unique(laid)) == {0, 255}
    assert len({mask.tobytes() for mask in laid}) > 0.95 * len(laid)
    assert (laid > 0).mean(axis=0).min() > 0.05  # anywhere


def test_every_image_is_in_one_domain_and_domains_are_alike(plain, task):
    images_N, labels = plain
    domain_N = domain_of(labels)
    names = list(DOMAINS)
    assert list(task.train.labels) == labels.tolist()
    assert list(task.train.groups) == [names[number] for number in domain_N]
    assert set(np.bincount(domain_N)) == {299, 300}
    for label in range(10):
        assert np.ptp(np.bincount(domain_N[labels == label], minlength=6)) <= 1
    for number, name in enumerate(names):
        members = domain_N == number
        assert np.array_equal(np.stack(task.train.content)[members], DOMAINS[name](images_N)[members])


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_splits_the_domains_as_it_splits_the_digits(seed, task):
    """No image is in two splits, in whatever look: the rows are the same as those of `digits`."""
    config = load_config("soft-domains").data
    here, there = split(task, config, Rng(seed)).named(), split(digits.read(), config, Rng(seed)).named()
    rows = {name: set(part.rows.tolist()) for name, part in here.items()}
    assert rows == {name: set(part.rows.tolist()) for name, part in there.items()}
    assert sum(map(len, rows.values())) == len(set.union(*rows.values())) == 1797
    for part in here.values():
        assert set(part.groups) == set(DOMAINS)


def test_a_client_is_a_domain():
    config = load_config("soft-domains")
    data, _, kind = build_task(config)
    partition = build_partition(config, data, Rng(config.seed))
    samples = split(digit_domains.read(), config.data, Rng(config.seed)).train
    assert kind == "image-classification"
    assert partition.names == data.group_names == tuple(sorted(DOMAINS))
    held = [partition.indices(client) for client in range(partition.clients)]
    assert np.array_equal(np.sort(np.concatenate(held)), np.arange(len(data.train)))
    for name, index_N in zip(partition.names, held, strict=True):
        assert {samples.groups[i] for i in index_N} == {name}
        assert len(index_N) > 150
        content = np.stack([samples.content[i] for i in index_N])
        assert np.array_equal(data.train.inputs["pixel_values"][index_N], digits.pixel_values(content))


def test_the_base_knows_no_domain_as_well_as_the_digits(plain, task):
    """With the recorded weights, which are the same everywhere: 41 % of the digits, 3 to 30 % of a domain's."""
    import torch
    from transformers import ViTForImageClassification

    from raysoft.models import embedded

    images_N, labels = plain
    with recorded_base():
        model = ViTForImageClassification.from_pretrained(embedded.ensure("embedded/vit-digits")).eval()

    def right(pixels_N):
        with torch.no_grad():
            logits = model(pixel_values=torch.from_numpy(digits.pixel_values(pixels_N))).logits
        return logits.argmax(-1).numpy() == labels

    known, domain_N = right(images_N).mean(), domain_of(labels)
    assert known > 0.35
    right_N = right(np.stack(task.train.content))
    for number, name in enumerate(DOMAINS):
        assert right_N[domain_N == number].mean() < known - 0.08, name


def test_two_rounds_through_the_coordinator():
    made, _ = coordinator("lora-fair-domains", "train.batch_size=4", "data.max_test_samples=60")
    assert made.parts.info.partition.clients == 6
    for number in (1, 2):
        record = made.round(number)
        assert record.participants == 6
        assert np.isfinite(record.train_loss)
        assert 0 < record.aggregation_covariance < 1
    _, _, details = made.finish()
    assert details["clients"]["name"] == sorted(DOMAINS)
    assert details["clients"]["samples"] == [made.parts.info.partition.size(client) for client in range(6)]
