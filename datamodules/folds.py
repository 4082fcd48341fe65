"""Dealing units (scenes, blocks) to folds so that each fold has its share of the landslides, of their pixels and of the labelled pixels."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from datamodules.errors import UserError

Array = npt.NDArray[Any]
ROLES: Final = ("train", "val", "test")


def balanced_folds(sizes: Array, folds: int, seed: int) -> Array:
    """Deal units to folds so that each fold has its share of every quantity: the largest first, each to where it raises the imbalance least.

    Args:
        sizes: float (units, quantities), such as labelled pixels, landslide pixels and landslides; not negative.
        folds: Number of folds.
        seed: Decides the order among units of one size.

    Returns:
        int64 (units): fold of each unit, from 0; no fold is empty.

    Raises:
        UserError: Fewer units than folds.
    """
    if len(sizes) < folds:
        raise UserError(
            f"only {len(sizes)} units can be dealt", "use fewer folds, smaller blocks or more scenes", field="--folds", value=folds
        )
    shares = sizes / np.maximum(sizes.sum(axis=0), 1e-300)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-shares[order].max(axis=1), kind="stable")]
    load = np.zeros((folds, sizes.shape[1]))
    members = np.zeros(folds, dtype=np.int64)
    assigned = np.empty(len(sizes), dtype=np.int64)
    for done, unit in enumerate(order):
        cost = ((load + shares[unit]) ** 2).sum(axis=1) - (load**2).sum(axis=1)
        if len(order) - done <= (members == 0).sum():  # as many units as empty folds are left
            cost[members > 0] = np.inf
        best = int(np.lexsort((members, cost))[0])
        load[best] += shares[unit]
        members[best] += 1
        assigned[unit] = best
    return assigned


def roles_of_folds(assigned: Array, folds: int, fold: int) -> list[str]:
    """Split of each unit in one fold: units of this fold test, those of the next validate, all others train."""
    return ["test" if own == fold else "val" if own == (fold + 1) % folds else "train" for own in assigned]
