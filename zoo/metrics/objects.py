"""Landslides found, missed and false, by every rule that is in use.

The papers' "object-level detection accuracy" has no definition that could be read, so a table shows all rules, each by its name:

- `iou0.5` (0.1, 0.3, 0.5, 0.75): a labelled and a predicted object match if their IoU is at least that, one to one. Among all such matchings
  the one with the most pairs counts, and among those the one with the largest sum of IoU (assignment problem, not in file order).
- `coverage0.5`: a labelled object is found if predicted objects cover at least half of its area; a predicted object is right if labelled
  ones cover at least half of its own. Many to one is allowed: what a geologist calls found.
- `any_hit`: likewise, with one pixel for half the area.
- Panoptic quality (Kirillov et al. 2019, doi 10.1109/CVPR.2019.00963): matches of IoU > 0.5, PQ = SQ x RQ; SQ the mean IoU of matches, RQ
  their F1.

What counts as an object:

- 8-connected components, see `components.py`; areas are those of valid pixels.
- Objects under the minimum area are dropped, on both sides. A predicted object of which more than half lies on ignored pixels, or on labelled
  objects that were dropped, or on both together, is left out instead of being a false alarm, unless it matches.
- An object that touches ignored pixels or the border of the scene counts by the part that is seen.
- Nothing labelled: recall is NaN, precision and F1 are 0. Nothing predicted: precision is NaN, recall and F1 are 0. Neither: all NaN.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from datamodules.errors import UserError
from zoo.metrics.components import Overlaps
from zoo.metrics.counts import Counts, f1_score, ratio

ANY_HIT = "any_hit"


@dataclass(frozen=True)
class ObjectRules:
    """What is counted.

    Args:
        min_area_m2: Least area of an object.
        ious: Least IoU of a match, one rule each; in (0, 1].
        coverage: Least share of an object that must be covered; in (0, 1].
        area_edges_m2: Ascending; they divide labelled objects into classes of area, each from one edge on to under the next, the first
            from nothing and the last without end.
    """

    min_area_m2: float
    ious: tuple[float, ...] = (0.1, 0.3, 0.5, 0.75)
    coverage: float = 0.5
    area_edges_m2: tuple[float, ...] = (1e4, 1e5, 1e6)

    @property
    def names(self) -> list[str]:
        """Names of the rules: those of IoU, coverage, any hit."""
        return [*(f"iou{iou:g}" for iou in self.ious), f"coverage{self.coverage:g}", ANY_HIT]

    @property
    def area_classes(self) -> list[str]:
        """Names of the classes of area, `0-10000m2` to `1000000m2-`."""
        edges = ["0", *(f"{edge:.0f}" for edge in self.area_edges_m2), ""]
        return [f"{low}-{high}m2" if high else f"{low}m2-" for low, high in itertools.pairwise(edges)]


@dataclass(frozen=True, eq=False)
class ObjectCounts(Counts):
    """Objects by rule and class of area: R rules, C classes."""

    rules: ObjectRules
    truth: NDArray[np.int64]
    """(C,): labelled objects."""
    found: NDArray[np.int64]
    """(R, C): those found."""
    predicted: NDArray[np.int64]
    """(R,): predicted objects that are right or false alarms, without those left out."""
    right: NDArray[np.int64]
    """(R,): those that are right."""
    panoptic_predicted: int
    panoptic_matched: int
    panoptic_iou: float
    """Sum of the IoU of panoptic matches."""
    km2: float
    """Valid area of the scenes."""

    def scores(self) -> dict[str, float]:
        """Scores of each rule, the whole and by class of area, and panoptic quality.

        Returns:
            For each rule `object_recall_RULE`, `object_precision_RULE`, `object_f1_RULE`, `object_false_alarms_per_km2_RULE` and, for each
            class, `object_recall_RULE_CLASS`; `panoptic_quality`, `segmentation_quality`, `recognition_quality`; `objects` (labelled ones).
        """
        scores: dict[str, float] = {}
        num = int(self.truth.sum())
        for rule, found, predicted, right in zip(self.rules.names, self.found, self.predicted, self.right, strict=True):
            recall, precision = ratio(int(found.sum()), num), ratio(int(right), int(predicted))
            scores[f"object_recall_{rule}"] = recall
            scores[f"object_precision_{rule}"] = precision
            scores[f"object_f1_{rule}"] = f1_score(precision, recall)
            scores[f"object_false_alarms_per_km2_{rule}"] = ratio(int(predicted - right), self.km2)
            for name, found_of_class, of_class in zip(self.rules.area_classes, found, self.truth, strict=True):
                scores[f"object_recall_{rule}_{name}"] = ratio(int(found_of_class), int(of_class))
        # TP + FP / 2 + FN / 2 is half the number of objects on both sides.
        objects = (num + self.panoptic_predicted) / 2
        scores["panoptic_quality"] = ratio(self.panoptic_iou, objects)
        scores["segmentation_quality"] = ratio(self.panoptic_iou, self.panoptic_matched)
        scores["recognition_quality"] = ratio(self.panoptic_matched, objects)
        scores["objects"] = float(num)
        return scores


def object_counts(overlaps: Overlaps, pixel_size_m: tuple[float, float], rules: ObjectRules) -> ObjectCounts:
    """Judge the objects of one scene.

    Args:
        overlaps: Of `overlaps_of_rasters` or `overlaps_of_labels`.
        pixel_size_m: Width and height of a pixel (x, y).
        rules: What counts.

    Raises:
        UserError: A value of the rules is out of its range.
    """
    _check(rules)
    pixel_m2 = pixel_size_m[0] * pixel_size_m[1]
    # Sixteen pixels of 0.1 m x 0.1 m are 0.16 m2, whatever their product in floating point.
    truth_m2, predicted_m2 = (pixels * pixel_m2 * (1 + 1e-9) for pixels in (overlaps.truth, overlaps.predicted))
    counted, guessed = truth_m2 >= rules.min_area_m2, (predicted_m2 >= rules.min_area_m2) & (overlaps.predicted > 0)
    truth, predicted, shared = overlaps.truth_index, overlaps.predicted_index, overlaps.shared
    uncounted = overlaps.predicted_ignored + _sum(predicted, np.where(counted[truth], 0, shared), guessed.size)
    excused = 2 * uncounted > overlaps.predicted + overlaps.predicted_ignored
    kept = counted[truth] & guessed[predicted]
    truth, predicted, shared = truth[kept], predicted[kept], shared[kept]
    iou = shared / (overlaps.truth[truth] + overlaps.predicted[predicted] - shared)
    verdicts = [_matched(overlaps, truth, predicted, iou, least) for least in rules.ious]
    verdicts += [_covered(overlaps, truth, predicted, shared, least) for least in (rules.coverage, 0.0)]
    strict = iou > 0.5  # at most one partner each, so there is nothing to assign
    matched = _marked(predicted[strict], guessed.size)
    classes = np.searchsorted(rules.area_edges_m2, truth_m2, side="right")
    num_classes = len(rules.area_edges_m2) + 1
    return ObjectCounts(
        rules=rules,
        truth=np.bincount(classes[counted], minlength=num_classes),
        found=np.stack([np.bincount(classes[found & counted], minlength=num_classes) for found, _ in verdicts]),
        predicted=np.array([int((guessed & (right | ~excused)).sum()) for _, right in verdicts], np.int64),
        right=np.array([int((guessed & right).sum()) for _, right in verdicts], np.int64),
        panoptic_predicted=int((guessed & (matched | ~excused)).sum()),
        panoptic_matched=int(strict.sum()),
        panoptic_iou=float(iou[strict].sum()),
        km2=overlaps.valid * pixel_m2 / 1e6,
    )


Verdict = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""bool (T,): labelled objects that are found; bool (P,): predicted ones that are right."""


def _matched(overlaps: Overlaps, truth: NDArray[np.int64], predicted: NDArray[np.int64], iou: NDArray[np.float64], least: float) -> Verdict:
    close = iou >= least
    truth, predicted = truth[close], predicted[close]
    match = match_one_to_one(truth, predicted, iou[close])
    return _marked(truth[match], overlaps.truth.size), _marked(predicted[match], overlaps.predicted.size)


def _covered(
    overlaps: Overlaps, truth: NDArray[np.int64], predicted: NDArray[np.int64], shared: NDArray[np.int64], least: float
) -> Verdict:
    of_truth, of_predicted = _sum(truth, shared, overlaps.truth.size), _sum(predicted, shared, overlaps.predicted.size)
    found = (of_truth > 0) & (of_truth >= least * overlaps.truth)
    return found, (of_predicted > 0) & (of_predicted >= least * overlaps.predicted)


def match_one_to_one(truth: NDArray[np.int64], predicted: NDArray[np.int64], iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """The most pairs that share no object, and among those the pairs with the largest sum of IoU.

    Args:
        truth: (K,): labelled object of each admissible pair.
        predicted: (K,): predicted object of each.
        iou: (K,): in (0, 1].

    Returns:
        Indices of the chosen pairs, ascending.
    """
    if not truth.size:
        return np.zeros(0, np.int64)
    row, first = np.unique(truth, return_inverse=True)
    column, second = np.unique(predicted, return_inverse=True)
    # A partner of its own for each labelled object makes a full matching possible. One more pair must be worth more than all IoU together;
    # weights start from 1, since 0 would be no edge.
    own = np.arange(row.size)
    weight = np.concatenate([1 + (row.size + 1) + iou, np.ones(row.size)])
    rows, columns = np.concatenate([first, own]), np.concatenate([second, column.size + own])
    graph = sparse.coo_array((weight, (rows, columns)), shape=(row.size, column.size + row.size)).tocsr()
    chosen_row, chosen_column = sparse.csgraph.min_weight_full_bipartite_matching(graph, maximize=True)
    partner = np.full(row.size, -1)
    partner[chosen_row] = chosen_column
    return np.flatnonzero(partner[first] == second)


def _sum(index: NDArray[np.int64], values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    total = np.zeros(size, np.int64)
    np.add.at(total, index, values)
    return total


def _marked(index: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    marked = np.zeros(size, bool)
    marked[index] = True
    return marked


def _check(rules: ObjectRules) -> None:
    if not rules.min_area_m2 >= 0:
        raise UserError("is no area", "give square metres from 0 on", field="min_area_m2", value=rules.min_area_m2)
    for name, values in (("ious", rules.ious), ("coverage", (rules.coverage,))):
        if not all(0 < value <= 1 for value in values):
            raise UserError("is out of range", "give shares in (0, 1]", field=name, value=values)
    if sorted(set(rules.area_edges_m2)) != list(rules.area_edges_m2):
        raise UserError("do not ascend", "sort them", field="area_edges_m2", value=rules.area_edges_m2)
