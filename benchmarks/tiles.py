"""A few test tiles of each run, kept to be looked at: the same ones for all runs, chosen by names and labels before any result is known.

    RESULTS/records/<key>.tiles.npz      for each tile the score of each pixel, uint8; the name of the next file
    RESULTS/records/ground-<hash>.npz    image, hillshade, label of the same tiles; once for all runs that were tested on them

Of the tiles that show landslides those are kept whose names have the smallest SHA-256, and likewise of those that show none. A run
therefore keeps what any other keeps, and a scene at a time is enough to find them.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.atomic import write_bytes
from datamodules.errors import UserError

WITH_LANDSLIDES: Final = 6
WITHOUT_LANDSLIDES: Final = 2
MIN_LANDSLIDE_SHARE: Final = 0.01
"""Of the labelled pixels, in a tile that shows landslides."""
MIN_LABELLED_SHARE: Final = 0.5
"""Of the pixels of a tile; what is mostly unlabelled tells little."""
MAX_SIDE: Final = 256
"""Pixels of a picture; of larger tiles every n-th pixel is kept, since the mean of several is right or wrong about none of them."""
RULE: Final = (
    f"{WITH_LANDSLIDES} test tiles with at least {MIN_LANDSLIDE_SHARE:.0%} landslide and {WITHOUT_LANDSLIDES} without any, of each those whose "
    "names have the smallest SHA-256: neither a method nor a result has a say"
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Tile:
    """One tile as one run sees it.

    Args:
        landslide: Share of landslide among its labelled pixels.
        pixel_m: Size of a kept pixel along x and y.
        label: uint8 (H, W): 0, 1, 255.
        image: WebP.
        hillshade: WebP; empty where there is no elevation model.
        scores: uint8 (H, W), bin of the score histogram: probability k / 256 to (k + 1) / 256.
    """

    landslide: float
    pixel_m: tuple[float, float]
    label: Array
    image: bytes
    hillshade: bytes
    scores: Array


def wanted(landslide_shares: Mapping[str, float]) -> list[str]:
    """Names of the tiles to keep: those with landslides first, each group by name.

    Args:
        landslide_shares: Name -> share of landslide among the labelled pixels.
    """
    groups = (
        ([name for name, share in landslide_shares.items() if share >= MIN_LANDSLIDE_SHARE], WITH_LANDSLIDES),
        ([name for name, share in landslide_shares.items() if share == 0], WITHOUT_LANDSLIDES),
    )
    return [name for names, count in groups for name in sorted(sorted(names, key=_rank)[:count])]


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def pick(tiles: Iterable[tuple[str, Tile]]) -> dict[str, Tile]:
    """Of more tiles those to keep, by name."""
    offered = dict(tiles)
    return {name: offered[name] for name in wanted({name: tile.landslide for name, tile in offered.items()})}


def save_tiles(key: str, tiles: Mapping[str, Tile], folder: Path) -> None:
    """Write the tiles of a run, equal ones as equal bytes.

    Args:
        key: Of the run.
        tiles: By name.
        folder: `RESULTS/records`.
    """
    ground: dict[str, Any] = {
        "names": np.array(list(tiles), dtype=np.str_),
        "landslide": np.array([tile.landslide for tile in tiles.values()], np.float64),
        "pixel_m": np.array([tile.pixel_m for tile in tiles.values()], np.float64).reshape(-1, 2),
    }
    scores: dict[str, Any] = {}
    for index, tile in enumerate(tiles.values()):
        ground |= {f"label_{index}": tile.label, f"image_{index}": _bytes(tile.image), f"hillshade_{index}": _bytes(tile.hillshade)}
        scores[f"scores_{index}"] = tile.scores
    content = _packed(ground)
    name = f"ground-{hashlib.sha256(content).hexdigest()[:12]}.npz"
    if not (folder / name).is_file():  # named by its content: another run has written the same
        write_bytes(folder / name, content)
    write_bytes(folder / f"{key}.tiles.npz", _packed({"ground": np.array(name), **scores}))


def load_tiles(key: str, folder: Path) -> dict[str, Tile]:
    """The tiles of a run by name; none of a run that kept none, as those that are older than tiles.

    Raises:
        UserError: A file is damaged, or what it names is missing.
    """
    path = folder / f"{key}.tiles.npz"
    if not path.is_file():
        return {}
    remedy = f"restore it from version control, or delete {path.name}: the report then shows no tiles of this run"
    try:
        own = _unpacked(path)
        path = folder / str(own["ground"])
        ground = _unpacked(path)
        return {
            str(name): Tile(
                landslide=float(ground["landslide"][index]),
                pixel_m=(float(ground["pixel_m"][index, 0]), float(ground["pixel_m"][index, 1])),
                label=ground[f"label_{index}"],
                image=ground[f"image_{index}"].tobytes(),
                hillshade=ground[f"hillshade_{index}"].tobytes(),
                scores=own[f"scores_{index}"],
            )
            for index, name in enumerate(ground["names"])
        }
    except FileNotFoundError:
        raise UserError("is missing", remedy, file=path) from None
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise UserError(f"corrupt tiles ({error})", remedy, file=path) from None


def _bytes(content: bytes) -> Array:
    return np.frombuffer(content, np.uint8)


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
