"""Which trainer trains which blocks. No torch at load time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysoft.errors import RaysoftError
from raysoft.models.trainers.base import Trainer
from raysoft.types import ParamSpace

if TYPE_CHECKING:
    from raysoft.models.frozen import FrozenBase


def trainer_for(base: FrozenBase, space: ParamSpace, device: str = "cpu", threads: int = 1) -> Trainer:
    """The trainer of these blocks: packed, for low-rank blocks with dense ones of other linear layers beside them.

    Raises RaysoftError for a dense block in a matrix that is adapted as well: no trainer has both.
    """
    adapted = {pair.module for pair in space.pairs}
    for block in space.dense:
        if block.name.rpartition(".")[0] in adapted:
            raise RaysoftError(f"{block.name} cannot be trained as it is: its matrix has low-rank factors")
    from raysoft.models.trainers.packed_lora import PackedTrainer

    return PackedTrainer(base, space, device, threads)
