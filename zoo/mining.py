"""Hard-negative mining: after validations, the network scores background windows of the training split, and the worst enter the pool."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from datamodules.batch import Batch
from datamodules.classes import IGNORE
from datamodules.errors import UserError
from datamodules.hard_negatives import FloatArray, IntArray
from datamodules.landslide import LandslideDataModule


class HardNegativeMining(Callback):
    """Scores background training windows by the mean probability of landslide that the network gives their labelled pixels.

    A validation sees no training window, so these are read for it: at most `data.mining_windows`, without augmentation, dealt out over
    the ranks, with the network as in evaluation. All ranks get all scores, hence the same pool. It is used from the next epoch of the
    sampler on and kept in the state of the data module; before the first mining, hard negatives are any background windows.

    Args:
        probabilities: Of the network: batch -> float (B, H, W).

    Attributes:
        validations: Validations so far, those before a resume included.
        validated_at: Batches that were done at the last of them.
    """

    def __init__(self, probabilities: Callable[[Batch], Tensor]) -> None:
        self._probabilities = probabilities
        self.validations, self.validated_at = 0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Refuse a training in which mining would never happen, or could not be repeated.

        Raises:
            UserError: No validation; epochs that are cut short; or a checkpoint from before the validation of its own step.
        """
        data = _data_of(trainer)
        if not trainer.enable_validation:
            raise UserError(
                "hard negatives are mined after validations, and there are none",
                "set limit_val_batches above 0, or data.hard_negatives to terrain",
                field="trainer.limit_val_batches",
                value=trainer.limit_val_batches,
            )
        if trainer.num_training_batches != data.batches_per_round:
            # A pool enters where an epoch of the sampler begins; one that is cut short deals out two of them at once.
            raise UserError(
                f"an epoch of {trainer.num_training_batches} batches cuts the {data.batches_per_round} of the sampler, and mining needs whole ones",
                "set data.samples_per_epoch instead of limiting or overfitting batches",
                field="trainer.limit_train_batches",
                value=trainer.limit_train_batches,
            )

        done = data.batches_done()
        if done != self.validated_at and _validates_at(trainer, done):
            # Lightning goes on without that validation, so the pool would be another than without the interruption.
            raise UserError(
                "this checkpoint was written before the validation of its step, at which hard negatives are mined",
                "resume from one written after a validation or between two",
                field="ckpt_path",
                value=trainer.ckpt_path,
            )

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mine; before checkpoints are written, which happens when the validation has ended."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.validations += 1
        data = _data_of(trainer)
        self.validated_at = data.batches_done()
        if self.validations % data.mining_every:
            return
        pools = data.hard_negative_pools
        assert pools is not None
        done = data.batches_done()
        candidates = pools.candidates(data.mining_windows, (data.sampling_seed, done))
        scores = self._score(trainer, data, candidates)
        chosen = pools.add(candidates, scores, batches_done=done, batches_per_round=data.batches_per_round)
        if len(chosen):
            pl_module.log("val/hard_negative_probability", float(scores[np.isin(candidates, chosen)].mean()), sync_dist=False)

    @torch.no_grad()
    def _score(self, trainer: L.Trainer, data: LandslideDataModule, candidates: IntArray) -> FloatArray:
        """Mean probability of each candidate, float64 (N,), the same on every rank; NaN where no pixel is labelled."""
        own = slice(trainer.global_rank, None, trainer.world_size)
        parts = []
        for batch in data.training_windows(candidates[own]):
            moved = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.val_step_context():
                probabilities = self._probabilities(moved)
            known = moved["mask"] != IGNORE
            parts.append((probabilities * known).sum((1, 2)) / known.sum((1, 2)))
        scores = torch.zeros(len(candidates), device=trainer.strategy.root_device)
        if parts:
            scores[own] = torch.cat(parts)
        # Each score is not zero on one rank only, so their sum is exact.
        summed = trainer.strategy.reduce(scores, reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed.cpu().numpy().astype(np.float64)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"validations": self.validations, "validated_at": self.validated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.validations, self.validated_at = state_dict["validations"], state_dict["validated_at"]


def _validates_at(trainer: L.Trainer, done: int) -> bool:
    """Whether a validation follows that many batches."""
    if trainer.val_check_batch is None:
        raise UserError(
            "hard negatives are not mined by the clock", "give a number of batches", field="trainer.val_check_interval", exit_code=2
        )
    between = int(trainer.val_check_batch)
    if trainer.check_val_every_n_epoch is None:
        return done % between == 0
    epochs, begun = divmod(done, int(trainer.num_training_batches))
    if begun == 0:
        return epochs % trainer.check_val_every_n_epoch == 0
    return begun % between == 0 and (epochs + 1) % trainer.check_val_every_n_epoch == 0


def _data_of(trainer: L.Trainer) -> LandslideDataModule:
    """The data module whose hard negatives are mined."""
    data = getattr(trainer, "datamodule", None)
    assert isinstance(data, LandslideDataModule)
    return data
