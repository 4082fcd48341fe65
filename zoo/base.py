"""LandslideModule: everything about training and evaluation that all methods share. A method adds its `objective` and nothing else."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from datamodules.batch import Batch
from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from datamodules.terrain import halo_of
from zoo.losses import LossOptions, SegmentationLoss
from zoo.metrics.pixels import ScoreHistogram, best_threshold, pixel_scores, score_histogram
from zoo.mining import HardNegativeMining
from zoo.segmentor import NetworkOptions, Segmentor

LOGGED = ("iou_landslide", "f1", "precision", "recall", "miou", "ap", "threshold", "prevalence")
"""Scores that are logged as `val/...` and `test/...`; records hold all of `pixel_scores`."""


@dataclass(frozen=True)
class OptimOptions:
    """Optimiser and learning-rate schedule, stepped once an optimiser step.

    Args:
        optimizer: `adamw` or `sgd` (momentum .9).
        lr: Peak learning rate.
        encoder_lr_factor: Factor on it for the encoders.
        weight_decay: On weights of two or more dimensions; biases and normalisation layers are spared.
        schedule: `poly` (power .9), `cosine`, or `constant`, after the warm-up.
        warmup_share: Share of all steps in which the rate rises linearly from 0.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    encoder_lr_factor: float = 1.0
    weight_decay: float = 1e-2
    schedule: Literal["poly", "cosine", "constant"] = "cosine"
    warmup_share: float = 0.05


class LandslideModule(L.LightningModule):
    """Base of all methods.

    A method overrides `objective` and, where it keeps a teacher or queues, `on_optimizer_step`; where it has parts besides the network that
    want scores of their own, `on_evaluated_batch`. Evaluation, optimiser and logging are sealed, so that no method can score itself by its
    own rules. Every constructor argument is kept as an attribute of its own name, which is how a checkpoint records what it was built from.

    Args:
        network: The network to train and deploy.
        loss: Segmentation loss.
        optim: Optimiser and schedule.

    Attributes:
        network: What deployment keeps; training-only parts are attributes of the module, outside it.
        auxiliary: Metrics of a method's further parts, each giving numbers by name. Filled by `on_evaluated_batch`; reset, gathered
            over ranks and logged with the pixel scores, which they cannot replace.
        val_histograms, test_histograms: After an evaluation, int64 (2, 256) counts for each tile, the same on every rank.
    """

    decision_threshold: Tensor

    def __init__(
        self, network: NetworkOptions = NetworkOptions(), loss: LossOptions = LossOptions(), optim: OptimOptions = OptimOptions()
    ) -> None:
        super().__init__()
        self.network = Segmentor(network)
        self.loss = SegmentationLoss(loss)
        self.optim = optim
        self.register_buffer("decision_threshold", torch.tensor(0.5, dtype=torch.float64))
        self.scores = ScoreHistogram()
        self.auxiliary = nn.ModuleDict()
        self.val_histograms: dict[str, Tensor] = {}
        self.test_histograms: dict[str, Tensor] = {}
        self._seed = 0
        self._stepped = False

    # ---- what a method may add -------------------------------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a training batch by name; `total` is optimised, every term is logged as `train/<term>`."""
        terms = self.loss(self.network(batch["image"], batch["dem"], batch["pixel_size"]), batch["mask"], batch.get("weight"))
        return {**terms, "total": terms["segmentation"]}

    def on_optimizer_step(self) -> None:
        """Called once after each optimiser step that really happened: not for accumulated batches, not for steps that AMP skipped."""

    def on_evaluated_batch(self, batch: Batch) -> None:
        """Called with each validation and test batch, after its pixels are counted: the place to update metrics in `auxiliary`."""

    # ---- training --------------------------------------------------------------------------------------------------------------------

    @property
    def threshold(self) -> float:
        """Decision threshold on the probability, chosen on validation and kept in the checkpoint."""
        return float(self.decision_threshold)

    @final
    def configure_callbacks(self) -> list[Callback]:
        """Mining of hard negatives, where the data ask for it."""
        data = getattr(self.trainer, "datamodule", None)
        return [HardNegativeMining(self.probabilities)] if isinstance(data, LandslideDataModule) and data.is_mined else []

    @final
    def setup(self, stage: str) -> None:
        """Check the data against the network and take the training statistics."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, LandslideDataModule):
            return
        options, preprocessing = self.network.options, self.network.preprocessing
        if options.inputs != "dem" and data.image_channels != options.image_channels:
            raise UserError(
                f"the images have {data.image_channels} bands",
                "set it to that number",
                field="network.image_channels",
                value=options.image_channels,
            )
        self._check_modalities(data, trains=stage == "fit")
        needed = halo_of(preprocessing.terrain, data.smallest_pixel_m) if preprocessing.terrain else 0
        if data.halo < needed:
            raise UserError(
                f"the terrain layers {', '.join(preprocessing.terrain)} need {needed} pixels",
                f"set it to {needed}",
                field="data.halo",
                value=data.halo,
            )
        if stage == "fit":
            preprocessing.set_statistics(data.statistics, data.training_sample())

    def _check_modalities(self, data: LandslideDataModule, *, trains: bool) -> None:
        """Refuse data that lack what the network needs.

        Raises:
            UserError: Names the option to change.
        """
        options = self.network.options
        has_dem = data.has_dem or (options.dem_dropout > 0 and (data.trains_with_dem or not trains))
        if options.inputs != "image" and not has_dem:
            raise UserError(
                "the data have no elevation model",
                "set it to image, add a dem to each scene, or train with network.dem_dropout above 0 on data of which some have one",
                field="network.inputs",
                value=options.inputs,
            )
        if options.inputs != "dem" and not data.has_image and (trains or not options.image_dropout):
            raise UserError(
                "leaves out the image, which the network needs",
                "set it to null, or take a network trained with network.image_dropout above 0",
                field="data.drop",
                value=data.drop,
            )

    @final
    def on_fit_start(self) -> None:
        """Remember the seed before any step draws from it."""
        self._seed = torch.initial_seed()

    @final
    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Make the random stream of a step a function of (seed, batches seen, rank), so a resumed run continues to the bit."""
        seen = self.trainer.fit_loop.epoch_loop.total_batch_idx + 1
        stream = (self._seed * 1_000_003 + seen) * 1_009 + self.global_rank
        torch.manual_seed(stream % 2**63)

    @final
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Optimise `total` and log every term."""
        terms = self.objective(batch)
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=len(batch["tile"]))
        return terms["total"]

    @final
    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, and let the method follow it. Here and not at the end of the batch, since checkpoints are written before that hook."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._stepped:
            self._stepped = False
            self.on_optimizer_step()

    @final
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over all trainable parameters, and the schedule."""
        options = self.optim
        groups = list(self._parameter_groups())
        if options.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=options.lr)
        else:
            optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
        # GradScaler calls `step` only when it does not skip, so this hook, and nothing else, knows that a step happened.
        optimizer.register_step_post_hook(self._note_step)
        schedule = _schedule(options, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _note_step(self, *_: object) -> None:
        self._stepped = True

    def _parameter_groups(self) -> Iterator[dict[str, Any]]:
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                in_encoder = name.startswith(("network.encoder.", "network.terrain_encoder."))
                groups.setdefault((in_encoder, parameter.ndim > 1), []).append(parameter)
        for (in_encoder, decays), parameters in sorted(groups.items(), key=lambda item: item[0]):
            yield {
                "params": parameters,
                "lr": self.optim.lr * (self.optim.encoder_lr_factor if in_encoder else 1.0),
                "weight_decay": self.optim.weight_decay if decays else 0.0,
            }

    # ---- evaluation ------------------------------------------------------------------------------------------------------------------

    @final
    def probabilities(self, batch: Batch) -> Tensor:
        """Probability of landslide, float32 (B, H, W)."""
        logits = self.network(batch["image"], batch["dem"], batch["pixel_size"])
        return torch.sigmoid(logits[:, 0].float())

    @final
    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._reset_scores()
        self.val_histograms = {}

    @final
    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Count scores."""
        self._count(batch, self.val_histograms)

    @final
    def on_validation_epoch_end(self) -> None:
        """Choose the threshold on the pooled validation histogram and log the scores at it."""
        histogram = self.scores.compute()
        self.decision_threshold.fill_(best_threshold(histogram))
        self._log_scores("val", histogram)
        self.val_histograms = _gather(self.val_histograms)

    @final
    def on_test_epoch_start(self) -> None:
        """Forget the last test."""
        self._reset_scores()
        self.test_histograms = {}

    @final
    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Count scores."""
        self._count(batch, self.test_histograms)

    @final
    def on_test_epoch_end(self) -> None:
        """Log the scores at the threshold that validation chose."""
        self._log_scores("test", self.scores.compute())
        self.test_histograms = _gather(self.test_histograms)

    @final
    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:  # noqa: ARG002 - Lightning's signature
        """Probabilities (B, H, W) and the names of their tiles."""
        return {"probabilities": self.probabilities(batch), "tile": batch["tile"]}

    def _count(self, batch: Batch, histograms: dict[str, Tensor]) -> None:
        probabilities = self.probabilities(batch)
        self.scores.update(probabilities, batch["mask"])
        histograms.update(zip(batch["tile"], score_histogram(probabilities, batch["mask"]).cpu(), strict=True))
        self.on_evaluated_batch(batch)

    def _reset_scores(self) -> None:
        self.scores.reset()
        for metric in self._auxiliary_metrics():
            metric.reset()

    def _auxiliary_metrics(self) -> Iterator[Metric]:
        for metric in self.auxiliary.values():
            assert isinstance(metric, Metric)
            yield metric

    def _log_scores(self, split: str, histogram: Tensor) -> None:
        scores = pixel_scores(histogram, self.threshold)
        logged = {name: scores[name] for name in LOGGED}
        for metric in self._auxiliary_metrics():
            beside: dict[str, float] = metric.compute()
            if taken := scores.keys() & beside.keys():
                raise ValueError(f"auxiliary scores must not take the names of pixel scores: {', '.join(sorted(taken))}")
            logged.update(beside)
        # All counts are summed over ranks already; a further reduction would average a ratio.
        self.log_dict({f"{split}/{name}": value for name, value in logged.items()}, sync_dist=False, rank_zero_only=False)

    # ---- checkpoints -----------------------------------------------------------------------------------------------------------------

    @final
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor arguments as nested plain values: what `zoo.create_method` takes to build this module again."""
        return {name: _plain(getattr(self, name)) for name in inspect.signature(type(self).__init__).parameters if name != "self"}

    @final
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the checkpoint self-contained, in plain values that `weights_only=True` loads."""
        data = getattr(self._trainer, "datamodule", None)  # a module without a trainer can be saved too
        data = data if isinstance(data, LandslideDataModule) else None
        checkpoint["landslide_zoo"] = {
            "method": f"{type(self).__module__}.{type(self).__qualname__}",
            "hyperparameters": self.hyperparameters(),
            "data": data.settings() if data else {},
            "training_pixel_m": list(data.training_pixel_m) if data and data.training_pixel_m else None,
        }


def _plain(value: object) -> object:
    """Options of a part, a dataclass or a plain value as nested plain values."""
    options = getattr(value, "options", value)
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        options = dataclasses.asdict(options)
    return _lists(options)


def _lists(value: object) -> object:
    """Tuples as lists, all the way down: what YAML and JSON give back."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (tuple, list)) else value


def _gather(histograms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Histograms of all ranks, one a tile, in the order of their names: whoever saw a tile, it counts once."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts: list[dict[str, Tensor]] = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(parts, histograms)
        histograms = {tile: histogram for part in parts for tile, histogram in part.items()}
    return dict(sorted(histograms.items()))


def _schedule(options: OptimOptions, num_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate at each step."""
    warmup = max(round(options.warmup_share * num_steps), 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
        if options.schedule == "poly":
            return float((1 - progress) ** 0.9)
        return 0.5 * (1 + math.cos(math.pi * progress)) if options.schedule == "cosine" else 1.0

    return factor
