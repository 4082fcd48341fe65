"""ICSSN's objectives: objects with their labels and contrast (OCL), sub-objects on boundaries and their contrast (SOCL)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.errors import UserError
from zoo.contrast import boundary_cells, gather_cells, info_nce, sample_cells
from zoo.icssn.schedule import Schedule, Turn


@dataclass(frozen=True)
class ICSSNOptions:
    """Iterative training. None of these numbers is stated in what we could read of the paper; see the README for their sources.

    Args:
        schedule: `rounds`, each of a classification and a segmentation phase; `alternate_epoch` or `alternate_step`; or `joint`, both
            networks in every step.
        rounds: Number of rounds.
        classification_share: Share of the steps (of each round; of epochs for `alternate_epoch`) for classification, in [0, 1); 0
            leaves the object classification network out, except under `joint`, which does not read it.
        first: The network that begins.
        objects: What is classified and contrasted: random `crops` of the tiles, or whole `tiles`.
        crops_per_tile: Crops a tile; half of them, rounded up, from places with landslide.
        crop_share: Side of a crop as share of the tile's, in (0, 1]; .5 makes quarters.
        min_landslide_share: Least share of landslide among an object's valid pixels for the label "landslide", in (0, 1].
        min_valid_share: Least share of valid pixels of an object that takes part; one without any never does.
        classification_weight: Weight of the cross-entropy of the labels; 0 builds no classifier.
        ocl: Contrast of objects: `info_nce`, supervised over the batch, or `pairs`, the margin loss of siamese networks.
        ocl_weight: Weight alpha of the contrast of objects; 0 leaves it out.
        ocl_dim: Length of an object's vector.
        ocl_temperature: Of InfoNCE.
        ocl_margin: Distance from which on objects of different labels are far enough apart; `pairs` only. Unit vectors are at most 2 apart.
        socl_weight: Weight beta of the contrast of sub-objects; 0 leaves it out.
        socl_dim: Length of a sub-object's vector.
        socl_temperature: Of InfoNCE.
        boundary_radius: Half width of the band along boundaries in pixels; `null` is one cell of the deepest features.
        sub_objects_per_image: Most sub-objects drawn a class and image.
        max_sub_objects: Most of them a class and batch on each device; large batches draw fewer an image.
    """

    schedule: Schedule = "rounds"
    rounds: int = 3
    classification_share: float = 1 / 3
    first: Turn = "classification"
    objects: Literal["crops", "tiles"] = "crops"
    crops_per_tile: int = 4
    crop_share: float = 0.5
    min_landslide_share: float = 0.05
    min_valid_share: float = 0.1
    classification_weight: float = 1.0
    ocl: Literal["info_nce", "pairs"] = "info_nce"
    ocl_weight: float = 1.0
    ocl_dim: int = 128
    ocl_temperature: float = 0.07
    ocl_margin: float = 1.0
    socl_weight: float = 0.1
    socl_dim: int = 256
    socl_temperature: float = 0.07
    boundary_radius: int | None = None
    sub_objects_per_image: int = 100
    max_sub_objects: int = 1024

    @property
    def classifies(self) -> bool:
        """Whether any step trains the object classification network."""
        trained = self.schedule == "joint" or self.classification_share > 0
        return trained and bool(self.classification_weight or self.ocl_weight)


def check_options(options: ICSSNOptions) -> None:
    """Refuse values that cannot be meant.

    Raises:
        UserError: A number out of its range.
    """
    positive = ("rounds", "crops_per_tile", "ocl_dim", "ocl_temperature", "ocl_margin", "socl_dim", "socl_temperature")
    for field in (*positive, "sub_objects_per_image", "max_sub_objects"):
        _require(options, field, "must be positive", holds=getattr(options, field) > 0)
    for field in ("classification_weight", "ocl_weight", "socl_weight"):
        _require(options, field, "must not be negative", holds=getattr(options, field) >= 0)
    for field in ("crop_share", "min_landslide_share"):
        _require(options, field, "must lie in (0, 1]", holds=0 < getattr(options, field) <= 1)
    _require(options, "min_valid_share", "must lie in [0, 1]", holds=0 <= options.min_valid_share <= 1)
    _require(options, "classification_share", "must lie in [0, 1)", holds=0 <= options.classification_share < 1)
    _require(options, "boundary_radius", "must be positive", holds=options.boundary_radius is None or options.boundary_radius > 0)


def _require(options: ICSSNOptions, field: str, problem: str, *, holds: bool) -> None:
    if not holds:
        default = getattr(ICSSNOptions(), field)
        remedy = f"the default is {'null' if default is None else f'{default:.4g}'}"
        raise UserError(problem, remedy, field=f"iteration.{field}", value=getattr(options, field), exit_code=2)


# ---- objects -------------------------------------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """What objects are, bool, of any shape."""

    landslide: Tensor
    """Label of the object."""
    valid: Tensor
    """Objects with enough labelled pixels; the others take no part."""


class Crops(NamedTuple):
    """Places of crops, int64 (B, N): the upper left pixel."""

    top: Tensor
    left: Tensor


def _labels(landslide_share: Tensor, valid_share: Tensor, options: ICSSNOptions) -> Labels:
    """Labels from shares of all pixels of each object."""
    known = (valid_share > 0) & (valid_share >= options.min_valid_share)
    return Labels(known & (landslide_share >= options.min_landslide_share * valid_share), known)


@torch.no_grad()
def object_labels(mask: Tensor, options: ICSSNOptions) -> Labels:
    """Labels of objects from their masks.

    Args:
        mask: uint8 (N, H, W): 0 background, 1 landslide, 255 ignore.
        options: Least shares.
    """
    return _labels((mask == LANDSLIDE).float().mean((1, 2)), (mask != IGNORE).float().mean((1, 2)), options)


def crop_size(mask: Tensor, crop_share: float) -> tuple[int, int]:
    """Rows and columns of a crop of a tile (..., H, W): at least 1 pixel."""
    height, width = mask.shape[-2:]
    return max(round(height * crop_share), 1), max(round(width * crop_share), 1)


@torch.no_grad()
def draw_crops(mask: Tensor, options: ICSSNOptions) -> tuple[Crops, Labels]:
    """Draw object crops so that both classes occur wherever the tiles have both.

    Places lie on a grid of a quarter of a crop. Half of the crops of each tile are drawn among its landslide-rich places, those with at
    least half the share of the richest one, and half among those without any landslide; by random score and top-k, so that shapes
    never depend on the data. Where a tile has none of a kind, any place will do, of its label first, and keeps the label that it has. No
    place is drawn twice; slots beyond the number of places with labelled pixels are invalid.

    Args:
        mask: uint8 (B, H, W): 0 background, 1 landslide, 255 ignore.
        options: Number and size of the crops, least shares.

    Returns:
        Places and labels, (B, N) each; N is `crops_per_tile`, or the number of places where there are fewer.
    """
    # Not stated in the paper: whether an object is a tile or a part of it, and how objects are balanced.
    size = crop_size(mask, options.crop_share)
    step = (max(size[0] // 4, 1), max(size[1] // 4, 1))
    landslide, valid = (
        functional.avg_pool2d(pixels.float()[:, None], size, stride=step)[:, 0] for pixels in (mask == LANDSLIDE, mask != IGNORE)
    )
    columns = landslide.shape[-1]
    landslide, valid = landslide.flatten(1), valid.flatten(1)
    labels = _labels(landslide, valid, options)
    share = torch.where(labels.valid, landslide / valid.clamp(min=1e-6), 0.0)
    rich = labels.landslide & (share >= 0.5 * share.amax(1, keepdim=True))
    free = labels.valid & (share == 0)
    num = min(options.crops_per_tile, share.shape[1])
    chosen: list[Tensor] = []
    open_places = labels.valid
    for wanted, same_label, count in ((rich, labels.landslide, (num + 1) // 2), (free, ~labels.landslide, num // 2)):
        score = torch.rand_like(share) + wanted.float() + same_label.float()
        index = torch.where(open_places, score, -1.0).topk(count, dim=1).indices
        chosen.append(index)
        open_places = open_places.scatter(1, index, value=False)
    place = torch.cat(chosen, dim=1)
    crops = Crops(place // columns * step[0], place % columns * step[1])
    return crops, Labels(labels.landslide.gather(1, place), labels.valid.gather(1, place))


def grid_crops(mask: Tensor, options: ICSSNOptions) -> Crops:
    """Crops that cover each tile, as few as do, in a fixed grid: the objects of an evaluation.

    Args:
        mask: (B, H, W), for its size.
        options: Size of the crops.
    """
    size = crop_size(mask, options.crop_share)
    top, left = (_starts(length, crop) for length, crop in zip(mask.shape[-2:], size, strict=True))
    places = torch.cartesian_prod(torch.tensor(top), torch.tensor(left)).to(mask.device)
    return Crops(places[:, 0].expand(len(mask), -1), places[:, 1].expand(len(mask), -1))


def _starts(length: int, crop: int) -> list[int]:
    num = -(-length // crop)
    return [round(number * (length - crop) / max(num - 1, 1)) for number in range(num)]


def cut(values: Tensor, crops: Crops, size: tuple[int, int]) -> Tensor:
    """Crops of each image, the N of the first first: (B, C, H, W) -> (B N, C, h, w).

    Args:
        values: Images.
        crops: Places, (B, N).
        size: (h, w).
    """
    rows = crops.top[..., None] + torch.arange(size[0], device=values.device)
    columns = crops.left[..., None] + torch.arange(size[1], device=values.device)
    image = torch.arange(len(values), device=values.device)[:, None, None, None]
    pieces = values.movedim(1, -1)[image, rows[..., :, None], columns[..., None, :]]
    return pieces.flatten(0, 1).movedim(-1, 1)


# ---- losses of the object classification network -------------------------------------------------------------------------------------


def label_loss(logits: Tensor, labels: Labels) -> Tensor:
    """Binary cross-entropy of object labels, mean over valid objects; 0 without any.

    Args:
        logits: float32 (N,).
        labels: (N,) each.
    """
    weight = labels.valid.float()
    loss = functional.binary_cross_entropy_with_logits(logits, labels.landslide.float(), reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def object_contrast(vectors: Tensor, labels: Labels, options: ICSSNOptions) -> Tensor:
    """Object-level contrast (OCL); 0, with a zero gradient, in a batch that does not hold both classes.

    Args:
        vectors: Unit vectors, float32 (N, D).
        labels: (N,) each.
        options: Kind and parameters.

    Returns:
        `info_nce`: each object against all others, see `zoo.contrast.info_nce`. `pairs`: over all pairs of valid objects the mean of d^2
        for equal labels and max(0, margin - d)^2 for different ones, with d the distance (Hadsell et al. 2006, without their 1/2).
    """
    landslide, valid = labels
    both = (landslide & valid).any() & (~landslide & valid).any()
    if options.ocl == "info_nce":
        own = torch.arange(len(vectors), device=vectors.device)
        loss = info_nce(vectors, landslide, valid, vectors, landslide, valid, options.ocl_temperature, exclude_self=own)
    else:
        # From differences and not from cosines: at distance 0 their gradient is 0, where that of a root of 2 - 2 cos is infinite.
        squared = (vectors[:, None] - vectors).square().sum(-1)
        distance = (squared + 1e-12).sqrt()
        pair = (valid[:, None] & valid).triu(1)
        term = torch.where(landslide[:, None] == landslide, squared, functional.relu(options.ocl_margin - distance).square())
        loss = (term * pair).sum() / pair.sum().clamp(min=1)
    return loss * both


# ---- sub-objects ---------------------------------------------------------------------------------------------------------------------


class SubObjectContrast(nn.Module):
    """Sub-object-level contrast (SOCL): cells of the deepest features on either side of landslide boundaries, within and between images.

    Queries are those on the landslide side, keys those of both sides, all from the same batch and with a gradient: neither a queue nor
    a momentum encoder is stated for ICSSN.

    Args:
        options: Numbers.
        projector: (B, C, h, w) -> (B, D, h, w).
        stride: Pixels a cell.
    """

    classes: Tensor

    def __init__(self, options: ICSSNOptions, projector: nn.Module, stride: int) -> None:
        super().__init__()
        self.options, self.projector, self.stride = options, projector, stride
        # A buffer, since a tensor made of numbers in a step would be a copy to the accelerator that the host waits for.
        self.register_buffer("classes", torch.tensor([LANDSLIDE, BACKGROUND]), persistent=False)

    def forward(self, deep: Tensor, mask: Tensor) -> Tensor:
        """The term, a scalar.

        Args:
            deep: Deepest features (B, C, h, w).
            mask: uint8 (B, H, W).
        """
        options = self.options
        projected = self.projector(deep)
        size = projected.shape[-2:]
        # Not stated in the paper: what a sub-object is; here a cell of the deepest features that touches the boundary.
        band = boundary_cells(mask, self.stride, size=(size[0], size[1]), radius=options.boundary_radius)
        slots = max(min(options.sub_objects_per_image, options.max_sub_objects // len(mask), size[0] * size[1]), 1)
        index, valid = sample_cells(torch.cat(band), slots)  # (2 B, slots), the landslide side of all images first
        vectors = torch.cat([gather_cells(projected, side) for side in index.chunk(2)]).flatten(0, 1)
        valid = valid.flatten()
        labels = self.classes.repeat_interleave(len(mask) * slots, output_size=len(valid))
        num = len(valid) // 2
        own = torch.arange(num, device=valid.device)
        return info_nce(vectors[:num], labels[:num], valid[:num], vectors, labels, valid, options.socl_temperature, exclude_self=own)
