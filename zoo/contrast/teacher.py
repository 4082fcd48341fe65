"""EmaTeacher: a copy of the student whose weights are the exponential moving average of the student's."""

import copy
import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from datamodules.errors import UserError


def _tensors(teacher: nn.Module, student: nn.Module, kind: str) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters or buffers of both in one order.

    Raises:
        ValueError: They differ in name, order or shape.
    """
    ours = list(teacher.named_parameters() if kind == "parameter" else teacher.named_buffers())
    theirs = list(student.named_parameters() if kind == "parameter" else student.named_buffers())
    if len(ours) != len(theirs):
        raise ValueError(f"the student has {len(theirs)} {kind}s, its teacher {len(ours)}; pass the module that the teacher was made from")
    for (name, tensor), (other_name, other) in zip(ours, theirs, strict=True):
        if name != other_name or tensor.shape != other.shape:
            raise ValueError(
                f"the student's {kind} {other_name} {tuple(other.shape)} meets the teacher's {name} {tuple(tensor.shape)}; "
                "pass the module that the teacher was made from"
            )
    return [tensor for _, tensor in ours], [tensor for _, tensor in theirs]


class EmaTeacher(nn.Module):
    """Momentum copy: parameters by moving average, buffers copied, no gradients.

    teacher <- m teacher + (1 - m) student, once per optimiser step. Buffers (the running statistics of batch norm, counters) are
    copied as they are: a teacher in `eval()` whose statistics stayed at their start would give features of another scale.

    The teacher is always in evaluation mode, whatever mode its owner is set to: dropout is off and batch norm uses the student's
    running statistics, so a key does not depend on the other samples of its batch or on the rank. With
    `batch_statistics=True` normalisation layers use those of the batch instead, as MoCo's key encoder does; that
    suits a training short enough for running statistics to lag behind, with batches not smaller than about 8.

    Its parameters have `requires_grad=False`: an optimiser that takes only trainable ones does not see them. The number of updates
    is part of `state_dict`, so a resumed schedule goes on where it stopped.

    Args:
        student: The module to follow, or several by name. The copy is `network` (of several, an `nn.ModuleDict`).
        momentum: m, or its start where it is scheduled, in [0, 1].
        momentum_end: m after `total_steps` updates, in [0, 1]; default no schedule.
        total_steps: Updates until `momentum_end` is reached, by a half cosine; needed with it.
        batch_statistics: Normalise by the batch's statistics instead of running ones.

    Raises:
        UserError: A momentum outside [0, 1], or only one of `momentum_end` and `total_steps`.
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, nn.Module],
        momentum: float = 0.999,
        momentum_end: float | None = None,
        total_steps: int | None = None,
        *,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        for field, value in (("momentum", momentum), ("momentum_end", momentum_end)):
            if value is not None and not 0 <= value <= 1:
                raise UserError("must lie in [0, 1]", "0.99 to 0.9999 is usual", field=field, value=value)
        if (momentum_end is None) != (total_steps is None) or (total_steps is not None and total_steps < 1):
            raise UserError(
                "a schedule needs momentum_end and total_steps >= 1",
                "give both, or neither for a constant",
                field="total_steps",
                value=total_steps,
            )
        self.momentum_start, self.momentum_end, self.total_steps = momentum, momentum_end, total_steps
        self.batch_statistics = batch_statistics
        self.network = copy.deepcopy(self._as_module(student))
        self.network.requires_grad_(requires_grad=False)
        # A Python number and not a buffer, because reading a buffer on an accelerator would halt the host once a step;
        # `get_extra_state` puts it into checkpoints all the same.
        self.step = 0
        self.train()

    @staticmethod
    def _as_module(student: nn.Module | Mapping[str, nn.Module]) -> nn.Module:
        return student if isinstance(student, nn.Module) else nn.ModuleDict(dict(student))

    def get_extra_state(self) -> Tensor:
        """The number of updates, int64 scalar, for `state_dict`."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the number of updates from `state_dict`."""
        self.step = int(state)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 - nn.Module's own signature; the mode is fixed, see the class
        """Keep the mode that the class describes; `mode` changes nothing."""
        super().train(False)
        if self.batch_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001 - the one base of all batch and instance norms
                    module.train()
        return self

    @property
    def momentum(self) -> float:
        """The m of the next update."""
        if self.momentum_end is None or self.total_steps is None:
            return self.momentum_start
        progress = min(self.step / self.total_steps, 1.0)
        return self.momentum_end - (self.momentum_end - self.momentum_start) * (math.cos(math.pi * progress) + 1) / 2

    @torch.no_grad()
    def update(self, student: nn.Module | Mapping[str, nn.Module]) -> None:
        """Follow the student; to be called once after each optimiser step.

        Args:
            student: What the teacher was made from.

        Raises:
            ValueError: It differs in names, order or shapes.
            UserError: Weights are in half precision.
        """
        module = self._as_module(student)
        mine, theirs = _tensors(self.network, module, "parameter")
        half = {tensor.dtype for tensor in mine} & {torch.bfloat16, torch.float16}
        if half:
            raise UserError(
                "a moving average in half precision would stand still, since its steps are smaller than the rounding",
                "use mixed precision (bf16-mixed), which keeps weights in float32",
                field="precision",
                value=", ".join(sorted(str(dtype) for dtype in half)),
            )
        if mine:
            torch._foreach_lerp_(mine, theirs, 1 - self.momentum)
        my_buffers, their_buffers = _tensors(self.network, module, "buffer")
        if my_buffers:
            torch._foreach_copy_(my_buffers, their_buffers)
        self.step += 1

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the student takes and gives
        """Call the teacher's network without gradients."""
        return self.network(*inputs, **options)
