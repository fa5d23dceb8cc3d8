"""What is trained, block by block: shapes, ranks, and which trainer trains them."""

import numpy as np
import pytest

from raysoft.errors import RaysoftError
from raysoft.methods.initial import initial_theta
from raysoft.methods.ranks import cut_to_rank, pad_to_rank
from raysoft.models.trainers.choice import trainer_for
from raysoft.rng import Rng
from raysoft.types import DenseBlock, LoraPair, ParamSpace
from tests.packs import make_base, space_of

PAIR, HEAD = LoraPair("m", 5, 4), DenseBlock("head.weight", (2, 5))
SPACE = ParamSpace((PAIR, HEAD), rank=3, scale=2.0)


def test_shapes_go_by_block_and_only_low_rank_ones_by_rank():
    assert list(SPACE.shapes.items()) == [("m.lora_A", (3, 4)), ("m.lora_B", (5, 3)), ("head.weight", (2, 5))]
    assert SPACE.shapes_at(1) == {"m.lora_A": (1, 4), "m.lora_B": (5, 1), "head.weight": (2, 5)}
    assert (SPACE.pairs, SPACE.dense, SPACE.always_sent) == ((PAIR,), (HEAD,), {"head.weight"})
    assert SPACE.num_values() == 3 * 4 + 5 * 3 + 2 * 5


def test_a_client_of_a_smaller_rank_holds_a_corner_and_its_update_is_padded_with_zeros():
    theta = initial_theta(SPACE, {"head.weight": np.ones((2, 5), np.float32)}, "peft", Rng(0))
    cut = cut_to_rank(theta, SPACE, 2)
    assert {name: value.shape for name, value in cut.items()} == SPACE.shapes_at(2)
    whole = pad_to_rank(cut, SPACE)
    np.testing.assert_array_equal(whole["m.lora_A"][:2], theta["m.lora_A"][:2])
    assert not whole["m.lora_A"][2:].any()
    np.testing.assert_array_equal(whole["head.weight"], theta["head.weight"])


def test_a_matrix_with_factors_is_not_trained_densely_as_well():
    base = make_base("vit")
    space, _ = space_of(base, rank=2, train_head=True)
    pair = space.pairs[0]
    both = ParamSpace(
        (*space.blocks, DenseBlock(f"{pair.module}.weight", (pair.out_features, pair.in_features))), 2, space.scale
    )
    trainer_for(base, space)
    with pytest.raises(RaysoftError, match=r"\.weight cannot be trained as it is: its matrix has low-rank factors"):
        trainer_for(base, both)
