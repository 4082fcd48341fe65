"""The iterative schedule: which network a step trains, as a pure function of the step, so that a resumed run is in the right phase."""

import math
from typing import Literal

Phase = Literal["classification", "segmentation", "joint"]
Schedule = Literal["rounds", "alternate_epoch", "alternate_step", "joint"]
Turn = Literal["classification", "segmentation"]


def phase_at(
    step: int, *, num_steps: int, steps_per_epoch: int, schedule: Schedule, rounds: int, classification_share: float, first: Turn
) -> Phase:
    """The phase of one optimiser step.

    `rounds` cuts training into rounds of equal length, to within a step, each of two runs of whole steps. A round of two steps or more
    has both, one of a single step has segmentation alone. The alternating schedules deal single epochs or steps so that after any
    number of them each network has had its share to within one, the first of all going to `first`: with a share of 1/3, classification
    first, every third from the first on.

    Args:
        step: Optimiser steps done before this one.
        num_steps: Of the whole training; `rounds` only.
        steps_per_epoch: Optimiser steps an epoch; `alternate_epoch` only.
        schedule: The kind of schedule; `joint` trains both in every step.
        rounds: Number of rounds; `rounds` only.
        classification_share: Share of steps, or epochs, for classification, in [0, 1); not for `joint`.
        first: The network that begins a round or the alternation.
    """
    if schedule == "joint":
        return "joint"
    if classification_share == 0:
        return "segmentation"
    if schedule == "rounds":
        number = min(step * rounds // num_steps, rounds - 1)
        # Round r starts with the first step s for which floor(s rounds / num_steps) is r.
        start, end = -(-number * num_steps // rounds), -(-(number + 1) * num_steps // rounds)
        length = end - start
        num_classification = min(max(round(classification_share * length), 1), length - 1)
        if first == "classification":
            return "classification" if step - start < num_classification else "segmentation"
        return "segmentation" if end - step > num_classification else "classification"
    turn = step // steps_per_epoch if schedule == "alternate_epoch" else step
    share = classification_share if first == "classification" else 1 - classification_share
    if _turns(turn + 1, share) > _turns(turn, share):
        return first
    return "segmentation" if first == "classification" else "classification"


def _turns(num: int, share: float) -> int:
    """Turns of `first` among the first `num`; what rounding errors put above a whole number still counts as that number."""
    return math.ceil(num * share - 1e-9)
