"""What a plug-in needs of the others, or cannot stand: all that decides which of them go together.

A Config declares `TRAITS`, or the property `traits` where its options decide. Which traits clash: clashes.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """Of any kind of plug-in; what a kind does not say of itself stays as it is here.

    A text names the setting that is the reason (`shared_mask=true`), so that a refusal can name it; "": it is not so.
    """

    # Methods
    needs_head: bool = False  # has nothing to train without a trained head
    trains_lora: bool = True
    common_order: str = ""  # all clients send the first components of one order, which the server gives (extras, too)
    moves_gauge: str = ""  # the coordinates of the factors change between rounds
    alternates: bool = False  # trains and sends other values in other rounds, B not always among them
    leaves_out_factor: bool = False  # A or B is not sent
    whole_components: bool = False  # needs to know who sent a component, which single entries do not tell
    own_start: bool = False  # clients start from other factors than those to which their changes are added
    base_drift: bool = False  # merges into the base
    redraws: bool = False  # draws fresh factors in every round, as peft does
    single_updates: str = ""  # what its fold needs besides sums: a radio that adds up what is sent cannot give it
    # Extras
    plain_sgd: bool = False  # needs SGD without weight decay and clipping
    fixed_gauge: bool = False  # remembers the factors' coordinates, which therefore have to stay
    side_sums: bool = False  # sends exact values beside the update
    needs_factors: bool = False  # has nothing to act on where no LoRA factor is trained
    server_step: bool = False  # takes the server's step itself, and remembers moments of each value that is trained
    # Codecs
    follows_order: bool = False  # can send the first components of a given order
    remembers_factors: str = ""  # keeps changes of the factors' coordinates from round to round
    remembers_products: str = ""  # keeps changes of the product, which it can only send as changes of B
    sends_components: bool = False  # whole ones: nothing of a component, or all of it
    needs_both_factors: str = ""
    sends_everything: bool = False  # whatever it is told
    plain_values: bool = True  # float32 as they are, which a radio can add up
    # Channels
    dated: bool = False  # each round has its own gains, no draws of one law: other rounds tell nothing about a run's
    # Allocators
    needs_channel: bool = True  # has a band to share
    needs_budget: bool = False  # cannot work without `latency_budget_s`; the budget is checked before the first round
    reads_curves: bool = True  # clients report their rate-distortion curves to it, which costs control bits
    # Uplinks
    shares_band: bool = True  # an allocator shares its band
    analog: bool = False  # what is sent adds up on the air
