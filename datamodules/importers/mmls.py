"""Mars landslides (MMLSv2; PBVS 2026 Mars Landslide Segmentation Challenge): 7-band tiles of Valles Marineris, 232 m a pixel.

Licence: MMLSv2 is CC-BY-4.0 as its paper states; check it for the copy at hand. Citation: arXiv 2602.08112.
Where: from the challenge; a copy of the training tiles is in the repository congque/Mars_Landslide_Segmentation_zw4922_open. Nothing is downloaded.

`images/*.tif`, float32: 1 thermal, 2 slope in degrees, 3 elevation in metres, 4 grey, 5-7 red, green, blue; `masks/*.tif`, 0/1; both perhaps in
{train,val,test}. Two tags are wrong: the slope holds an UNTAGGED -3.4e38, and masks declare nodata = 0 although 0 is a class. Imported are red,
green, blue and the elevation (sentinels become the tagged -9999); slope is computed from the elevation, so its band is not needed. The
coordinate system of Mars, which has no EPSG code, is kept.
"""

from pathlib import Path
from typing import Final

import rasterio
from rasterio.errors import RasterioError

from datamodules.errors import UserError
from datamodules.importers.converting import Tile, TileWriter, binary_mask, compact, read_picture, without_sentinels
from datamodules.importers.layout import Imported, Importer, ImportOptions, named_split, pair, pictures, split_of

_NUM_BANDS: Final = 7
_DEM_BAND: Final = 2  # from 0
_TAGS: Final = {
    "BANDS_OF_SOURCE": "5-7 of thermal, slope, elevation, grey, red, green, blue",
    "NODATA_OF_SOURCE": "wrong or missing, mended",
}


def recognises(folder: Path) -> bool:
    """The first picture in `images` or `*/images` is a float GeoTIFF of 7 bands on Mars."""
    images = _images(folder)
    if not images:
        return False
    try:
        with rasterio.open(images[0]) as file:
            return bool(
                file.count == _NUM_BANDS and file.dtypes[0] == "float32" and file.crs is not None and "mars" in file.crs.to_wkt().lower()
            )
    except RasterioError:
        return False  # damaged: another importer may say what is wrong with it


def _images(folder: Path) -> list[Path]:
    """GeoTIFFs in `images` and `*/images`."""
    folders = [folder / "images", *sorted(folder.glob("*/images"))]
    return [image for images in folders for image in pictures(images) if image.suffix.lower() in {".tif", ".tiff"}]


def to_scenes(folder: Path, out: Path, options: ImportOptions) -> Imported:
    """Convert every tile to colour image, elevation and mask."""
    images = _images(folder)
    masks = [mask for path in [folder / "masks", *sorted(folder.glob("*/masks"))] for mask in pictures(path)]
    labels = {(named_split(mask, folder), mask.stem): mask for mask in masks}
    writer = TileWriter(out, "MMLS (Mars)")
    scenes = []
    for image_file, mask_file in pair(images, labels, folder, lambda file: file.stem).items():
        split = split_of(image_file, folder, options) if mask_file else "predict"
        source = read_picture(image_file)
        if len(source.bands) != _NUM_BANDS:
            raise UserError(f"has {len(source.bands)} bands", f"tiles have {_NUM_BANDS}", file=image_file, field="image")
        bands = without_sentinels(source.bands)
        tile = Tile(
            f"{split}/{image_file.stem}",
            compact(bands[4:]),
            binary_mask(read_picture(mask_file), mask_file, 1) if mask_file else None,
            bands[_DEM_BAND],
            source.crs,
            source.transform,
            options.resolution_m,
            "Valles Marineris",
            ("red", "green", "blue"),
            _TAGS,
        )
        scenes.append(writer.write(tile))
    return Imported(scenes, ["bands red, green, blue and elevation were taken; thermal, slope and grey were not"])


IMPORTER: Final = Importer("mmls", recognises, to_scenes)
