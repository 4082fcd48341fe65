"""Map a scene from Python, and look at the result band by band.

python examples/map_scene.py best.ckpt ortho.tif dem.tif prob.tif
"""

import sys
from pathlib import Path

import rasterio

from zoo import load_checkpoint
from zoo.mapping import Ensemble, MapOptions, map_scene, predict_scene, scene_reader


def main(checkpoint: str, image: str, dem: str, out: str) -> None:
    """Write the map, then say how much of the scene is landslide."""
    result = map_scene(checkpoint, image, dem, out=out, options=MapOptions(tta="d4"))
    with rasterio.open(result.classes) as dataset:
        classes = dataset.read(1)
    share = (classes == 1).sum() / max((classes != 255).sum(), 1)
    print(f"{result.probability}: {share:.1%} landslide at {result.threshold:.3f}, {result.km2_per_hour:,.0f} km2/h")

    # The same without files and without the whole scene in memory.
    ensemble = Ensemble([load_checkpoint(checkpoint)])
    with scene_reader(ensemble, Path(image), Path(dem)) as reader:
        for band in predict_scene(ensemble, reader, tile=128):
            print(
                f"rows {band.row} to {band.row + len(band.valid) - 1}: highest probability {band.probability[band.valid].max(initial=0):.3f}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
