"""Reference rows that train nothing: what "no landslide anywhere" and "it is steep" score on the same pixels.

`slope_threshold` calls landslide what is steeper than one global threshold, chosen on validation like the threshold of a network.
Its score is slope / 90 in the 256 bins of the score histogram, so the threshold has steps of 90 / 256 = 0.35 degrees.
Pixels without a slope (no elevation data near) score 0: they are called background.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.dataset import manifest_sha256
from benchmarks.record import Histograms, RunRecord
from benchmarks.scenes import evaluate_scenes
from benchmarks.spec import RunSpec
from benchmarks.tiles import Tile
from datamodules.batch import Batch
from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from datamodules.terrain import halo_of, slope
from zoo.metrics.pixels import best_threshold, pixel_scores, score_histogram

MAX_SLOPE_DEG: Final = 90.0

Histogram = np.ndarray[Any, np.dtype[np.int64]]


def background_score(batch: Batch) -> Tensor:
    """Zero everywhere, float32 (B, H, W)."""
    return torch.zeros(batch["mask"].shape)


def slope_score(batch: Batch) -> Tensor:
    """Slope (Horn) over 90 degrees, float32 (B, H, W) in [0, 1]; 0 where there is none.

    Raises:
        UserError: The data have no elevation model at all.
    """
    height, width = batch["mask"].shape[-2:]
    halo = (batch["dem"].shape[-2] - height) // 2
    steepness = slope(batch["dem"], batch["pixel_size"])[:, 0, halo : halo + height, halo : halo + width]
    return (steepness / MAX_SLOPE_DEG).nan_to_num(0.0).clamp(0.0, 1.0)


SCORES: Final[dict[str, Callable[[Batch], Tensor]]] = {"all_background": background_score, "slope_threshold": slope_score}
INPUTS: Final = {"all_background": "none", "slope_threshold": "dem"}


class Rule:
    """A score as a predictor of tiles.

    Args:
        name: One of `SCORES`.
    """

    size: Final = 1

    def __init__(self, name: str) -> None:
        self.reads_dem, self._score = name == "slope_threshold", SCORES[name]

    def halo(self, pixel_size: tuple[float, float]) -> int:
        """Pixels of elevation around a tile that a slope needs."""
        return halo_of(["slope"], pixel_size)

    def __call__(self, batch: Batch) -> Tensor:
        """float32 (B, 1, H, W)."""
        return self._score(batch)[:, None]


def histograms_of(loader: Iterable[Batch], score: Callable[[Batch], Tensor]) -> dict[str, Histogram]:
    """Score histogram of each tile, int64 (2, 256)."""
    histograms: dict[str, Histogram] = {}
    for batch in loader:
        histograms.update(zip(batch["tile"], score_histogram(score(batch), batch["mask"]).numpy(), strict=True))
    return histograms


def evaluate(
    spec: RunSpec, data: LandslideDataModule, root: Path, work: Path, *, pictures: bool = True
) -> tuple[RunRecord, Histograms, dict[str, Tile]]:
    """Score a reference on validation and test.

    Args:
        spec: Whose `method` is one of `SCORES`.
        data: Windows to score; not yet set up.
        root: Folder of the data.
        work: Folder for temporary files.
        pictures: Keep a few tiles to be looked at.

    Returns:
        The record (cost and environment still empty), the histograms and the tiles.
    """
    data.prepare_data()
    data.setup()
    if spec.method == "slope_threshold" and not data.has_dem:
        raise UserError("the data have no elevation model", "leave slope_threshold out of references", field="references", exit_code=2)
    val = histograms_of(data.val_dataloader(), SCORES[spec.method])
    scenes = evaluate_scenes(Rule(spec.method), data, reference_threshold(val, spec.method), work, pictures=pictures)
    histograms = {"val": val, "test": scenes.histograms}
    metrics = reference_scores(histograms, spec.method)
    metrics["test"].update(scenes.scores)
    record = RunRecord(
        key=spec.key,
        status="finished",
        spec=spec.to_dict(),
        metrics=metrics,
        model={"inputs": INPUTS[spec.method]},
        data=describe_data(spec, root, data, histograms),
    )
    return record, histograms, scenes.tiles


def reference_threshold(histograms: Mapping[str, Histogram], method: str) -> float:
    """The threshold that validation chooses."""
    # A score of 0 everywhere has no threshold to choose: any above 0 calls all of it background.
    return 0.5 if method == "all_background" else best_threshold(torch.from_numpy(np.sum(list(histograms.values()), axis=0)))


def reference_scores(histograms: Histograms, method: str) -> dict[str, dict[str, float]]:
    """Pooled pixel scores of both splits at the threshold that validation chose."""
    threshold = reference_threshold(histograms["val"], method)
    pooled = {split: torch.from_numpy(np.sum(list(tiles.values()), axis=0)) for split, tiles in histograms.items()}
    metrics = {split: pixel_scores(histogram, threshold) for split, histogram in pooled.items()}
    if method == "slope_threshold":
        for scores in metrics.values():
            scores["threshold_deg"] = threshold * MAX_SLOPE_DEG
            scores["brier"] = float("nan")  # slope / 90 orders pixels but is no probability
    return metrics


def describe_data(spec: RunSpec, root: Path, data: LandslideDataModule, histograms: Histograms) -> dict[str, Any]:
    """Which data were used, and how much of them: windows, km2 and prevalence by split, counted pixels of val and test."""
    splits: dict[str, dict[str, Any]] = {}
    for split, summary in data.summary().items():
        splits[split] = {
            "windows": summary.windows,
            "scenes": summary.scenes,
            "km2": round(summary.km2, 6),
            "prevalence": summary.prevalence,
        }
    for split, tiles in histograms.items():
        background, landslide = np.sum(list(tiles.values()), axis=(0, 2)).tolist()
        pixels = background + landslide
        splits[split] |= {"pixels": pixels, "prevalence": landslide / pixels if pixels else float("nan")}
    return {"name": spec.data_name, "fingerprint": spec.data_fingerprint, "manifest_sha256": manifest_sha256(root), "splits": splits}
