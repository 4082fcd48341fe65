"""Whether a probability means what it says, from score histograms.

Rules:

- The probability in question is that of landslide, over all valid pixels, and not the confidence in whichever class was chosen: nine tenths
  of background would hide what is wrong. For the same reason one score looks at predicted landslide alone.
- Pixels of a histogram bin count with the bin's centre, so every probability is known to 1 / 512.
- *ECE*: mean over groups of bins of |mean probability - share of landslide|, weighted by pixels. Groups have equal width (16 of 16 bins),
  or equal mass: each bin goes to the group in which the middle of its pixels lies, and is never split, so that there may be fewer groups.
- *Error of the confident*: of the pixels whose probability is at least 0.9 or at most 0.1, the share that is labelled otherwise. The limits
  move outwards to the next edge of a bin (231 / 256 and 25 / 256).
- *Temperature* (Guo et al. 2017, arXiv 1706.04599): T > 0 such that sigmoid(logit / T) has the least log loss on validation; applied to
  test unchanged. It moves no pixel across another, so precision-recall curves and decisions at the moved threshold stay as they are. The
  logit of a bin is that of its centre and hence within +-6.24: what a network says beyond 511 : 1 looks the same here, and a T from
  histograms is coarse for a network that says little else.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from zoo.metrics.counts import ratio
from zoo.metrics.pixels import NUM_BINS

NUM_GROUPS: Final = 16
CONFIDENT: Final = 0.9
TEMPERATURES: Final = (0.05, 20.0)
"""Limits of the search; a result at one of them says that validation pixels want none in between."""
CENTRES: Final[NDArray[np.float64]] = (np.arange(NUM_BINS) + 0.5) / NUM_BINS

Floats = NDArray[np.float64]
Grouping = Literal["width", "mass"]


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability curve: groups that hold pixels, by ascending probability."""

    probability: Floats
    """(G,): mean probability."""
    landslide_share: Floats
    """(G,): share of pixels labelled landslide."""
    pixels: NDArray[np.int64]
    """(G,)."""

    @property
    def ece(self) -> float:
        """Expected calibration error; NaN without pixels."""
        return ratio(float((np.abs(self.probability - self.landslide_share) * self.pixels).sum()), int(self.pixels.sum()))


def reliability(
    histogram: NDArray[Any], probability: Floats = CENTRES, *, grouping: Grouping = "width", num_groups: int = NUM_GROUPS
) -> Reliability:
    """Group the bins of a histogram and compare probability with share.

    Args:
        histogram: int64 (2, 256).
        probability: float64 (256,): of each bin, ascending; `at_temperature` gives others than the centres.
        grouping: Groups of equal `width` in probability or of equal `mass`.
        num_groups: How many.
    """
    pixels = histogram.sum(0)
    if grouping == "width":
        group = np.minimum((probability * num_groups).astype(np.int64), num_groups - 1)
    else:
        middle = np.cumsum(pixels) - pixels / 2
        group = np.minimum((middle * num_groups / max(int(pixels.sum()), 1)).astype(np.int64), num_groups - 1)
    total = np.bincount(group, weights=pixels, minlength=num_groups)
    held = total > 0
    mean = np.bincount(group, weights=pixels * probability, minlength=num_groups)[held] / total[held]
    share = np.bincount(group, weights=histogram[1], minlength=num_groups)[held] / total[held]
    return Reliability(mean, share, total[held].astype(np.int64))


def brier(histogram: NDArray[Any], probability: Floats = CENTRES) -> float:
    """Mean squared difference of probability and label; NaN without pixels.

    Args:
        histogram: int64 (2, 256).
        probability: float64 (256,): of each bin.
    """
    error = (histogram[0] * probability**2 + histogram[1] * (1 - probability) ** 2).sum()
    return ratio(float(error), int(histogram.sum()))


def log_loss(histogram: NDArray[Any], probability: Floats = CENTRES) -> float:
    """Mean negative log likelihood in nats; NaN without pixels.

    Args:
        histogram: int64 (2, 256).
        probability: float64 (256,): of each bin.
    """
    loss = -(special.xlogy(histogram[1], probability) + special.xlog1py(histogram[0], -probability)).sum()
    return ratio(float(loss), int(histogram.sum()))


def error_of_confident(histogram: NDArray[Any], confidence: float = CONFIDENT) -> float:
    """Share of wrong pixels among those with a probability of at least `confidence` or at most 1 - `confidence`; NaN if there are none.

    Args:
        histogram: int64 (2, 256).
        confidence: In (0.5, 1); moves up to the next edge of a bin.
    """
    high = math.ceil(confidence * NUM_BINS - 1e-9)
    above, below = histogram[:, high:].sum(1), histogram[:, : NUM_BINS - high].sum(1)
    return ratio(int(above[0] + below[1]), int(above.sum() + below.sum()))


def fit_temperature(histogram: NDArray[Any]) -> float:
    """The temperature of least log loss.

    Args:
        histogram: int64 (2, 256), of validation.

    Returns:
        Within `TEMPERATURES`; NaN where one of the two labels is missing, since any certainty about the other would do.
    """
    if not histogram.sum(1).all():
        return math.nan
    low, high = (math.log(temperature) for temperature in TEMPERATURES)
    # Log loss is convex in 1 / T, so there is one minimum.
    found = optimize.minimize_scalar(
        lambda log_t: log_loss(histogram, at_temperature(math.exp(log_t))), bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(float(found.x))


def at_temperature(temperature: float) -> Floats:
    """Probability of each bin after temperature scaling, float64 (256,) ascending.

    Args:
        temperature: Above 1 takes certainty away, below 1 adds some.
    """
    scaled: Floats = special.expit(special.logit(CENTRES) / temperature)
    return scaled


def calibration_scores(test: NDArray[Any], threshold: float, temperature: float) -> dict[str, float]:
    """All calibration scores of one pooled histogram.

    Args:
        test: int64 (2, 256).
        threshold: Decision threshold, for `ece_predicted`.
        temperature: Of `fit_temperature` on validation.

    Returns:
        `ece_width16, ece_mass16, ece_predicted, brier, log_loss, error_confident_0.9, temperature`, and `ece_width16_scaled,
        ece_mass16_scaled, brier_scaled, log_loss_scaled` at that temperature; NaN where they do not exist.
    """
    scaled = at_temperature(temperature) if temperature > 0 else None
    predicted = np.where(np.arange(NUM_BINS) >= math.ceil(threshold * NUM_BINS - 1e-9), test, 0)
    scores = {
        **_scores(test, CENTRES, ""),
        "ece_predicted": reliability(predicted).ece,
        f"error_confident_{CONFIDENT:g}": error_of_confident(test),
        "temperature": temperature,
    }
    after = dict.fromkeys(_scores(test, CENTRES, "_scaled"), math.nan) if scaled is None else _scores(test, scaled, "_scaled")
    return {**scores, **after}


def _scores(histogram: NDArray[Any], probability: Floats, suffix: str) -> dict[str, float]:
    return {
        f"ece_width{NUM_GROUPS}{suffix}": reliability(histogram, probability).ece,
        f"ece_mass{NUM_GROUPS}{suffix}": reliability(histogram, probability, grouping="mass").ece,
        f"brier{suffix}": brier(histogram, probability),
        f"log_loss{suffix}": log_loss(histogram, probability),
    }
