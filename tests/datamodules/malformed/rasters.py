"""Mistakes in images, elevation models and label rasters; cases as in `manifests`."""

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from tests.datamodules.malformed.healthy import (
    BOUNDS,
    ORIGIN,
    SCENES,
    SIZE,
    elevations,
    image,
    mask,
    place,
    slope,
    state,
    write,
    write_dem,
)

LEFT, TOP = ORIGIN
FLOATS = image(dtype=np.float32)
GROUND = elevations()
MARS = (
    'PROJCS["Mars",GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,0]],PRIMEM["Mars",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Equirectangular"],PARAMETER["central_meridian",0],UNIT["metre",1]]'
)
DEGREES = Affine(1e-4, 0, 105, 0, -1e-4, 36)


def cut(name, share=0.5):
    """Leave the first part of a file."""

    def spoil(root):
        path = root / name
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return spoil


def contents(name, data):
    """Other bytes."""
    return lambda root: (root / name).write_bytes(data)


def picture(values=None, **profile):
    """Another image."""
    return lambda root: write(root / "s0/image.tif", image() if values is None else values, **profile)


def label(values=None, **profile):
    """Another label."""
    return lambda root: write(root / "s0/label.tif", mask() if values is None else values, **profile)


def model(values=None, **profile):
    """Another elevation model."""
    return lambda root: write_dem(root, values, **profile)


def holed(value, dtype=np.float32):
    """An elevation model with some pixels of a value, under the image."""
    ground = GROUND.copy()
    ground[18:20, 18:24] = value
    return ground.astype(dtype)


def used_as(values, *uses):
    """An image of which bands are used otherwise than by their place."""

    def spoil(root):
        with rasterio.open(write(root / "s0/image.tif", values), "r+") as file:
            file.colorinterp = uses

    return spoil


def palette(root):
    """An image of 256 colours."""
    with rasterio.open(write(root / "s0/image.tif", image(1), photometric="PALETTE"), "r+") as file:
        file.write_colormap(1, {value: (value, 0, 255 - value, 255) for value in range(256)})


def flipped(root):
    """An elevation model whose first row is the southern one."""
    _, at = slope(BOUNDS, "EPSG:32649", 30.0)
    write_dem(root, GROUND[::-1], transform=Affine(at.a, 0, at.c, 0, -at.e, at.f + at.e * GROUND.shape[0]))


def axes_exchanged(root):
    """An elevation model in degrees with latitude for longitude."""
    values, at = slope(BOUNDS, "EPSG:4326", 0.0003, margin=0.003)
    write(root / "s0/dem.tif", values, "EPSG:4326", Affine(at.a, 0, at.f, 0, at.e, at.c))


def half_the_globe(root):
    """An elevation model whose edges have no place in the image's system."""
    write(root / "s0/dem.tif", np.add.outer(np.arange(180.0), np.arange(360.0)), "EPSG:4326", Affine(1, 0, -180, 0, -1, 90))


def on_mars(root):
    """A scene that has no way to the others."""
    state(root, dem="")
    for name, values in (("image", image()), ("label", mask())):
        write(root / f"s0/{name}.tif", values, MARS, Affine(10, 0, 0, 0, -10, 0))


def all_labels(values):
    """The same label for all scenes."""
    return lambda root: [write(root / name / "label.tif", values, transform=place(number)) for number, name in enumerate(SCENES)]


def broken_inside(root):
    """A compressed image with damaged bytes in the middle."""
    path = write(root / "s0/image.tif", image(), compress="deflate")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff" * 300 + data[len(data) // 2 + 300 :])


IMAGES = {
    "image truncated": (cut("s0/image.tif"), 1, ["s0/image.tif: cannot be read, it is truncated or damaged", "write the file anew"]),
    "image cut in its header": (cut("s0/image.tif", 0.01), 1, ["image.tif: cannot be opened as a raster", "write the file anew"]),
    "image of zero bytes": (contents("s0/image.tif", b""), 1, ["image.tif: cannot be opened as a raster", "write the file anew"]),
    "text named .tif": (contents("s0/image.tif", b"<html>404</html>"), 1, ["image.tif: cannot be opened as a raster", "another format"]),
    "image damaged inside": (broken_inside, 1, ["image.tif: cannot be read, it is truncated or damaged", "write the file anew"]),
    "image of one pixel": (picture(image(shape=(1, 1))), 0, ["image.tif: is 1 x 1 pixels", "filled up with ignored pixels"]),
    "complex numbers": (picture(image().astype(np.complex64)), 1, ["image.tif: image: holds complex64 values", "real numbers"]),
    "image of NaN": (picture(FLOATS * np.nan), 1, ["image.tif: has no data anywhere", "nodata value"]),
    "one band of NaN": (picture(np.stack([FLOATS[0], FLOATS[1] * np.nan, FLOATS[2]])), 1, ["image.tif: has no data anywhere"]),
    "infinite values": (picture(np.where(FLOATS > 200, np.inf, FLOATS)), 0, ["images hold float32 values"]),
    "untagged nodata": (picture(np.where(FLOATS > 200, -3.4e38, FLOATS).astype("f4")), 1, ["-3.4e+38, which was not", "state image_nodata"]),
    "all nodata": (picture(image() * 0 + 7, nodata=7), 1, ["image.tif: has no data anywhere", "nodata value"]),
    "one value everywhere": (picture(image() * 0 + 7), 0, ["image.tif: is 7 everywhere", "check the file"]),
    "mixed numbers of bands": (picture(image(4), photometric="MINISBLACK"), 1, ["images have 4 bands, most have 3", "same bands"]),
    "mixed types": (picture(image(dtype=np.uint16)), 0, ["images hold uint16 values, most hold uint8", "one type and one scale"]),
    "palette": (palette, 1, ["image.tif: image: holds colours of a palette", "-expand rgb"]),
    "alpha band alone": (used_as(image(1), ColorInterp.alpha), 1, ["image.tif: image: holds an alpha band and nothing else"]),
    "transparent everywhere": (
        used_as(np.stack([*image(), image(1)[0] * 0]), *[ColorInterp.undefined] * 3, ColorInterp.alpha), 1, ["has no data anywhere"]),
    "bands last": (picture(image().transpose(1, 2, 0)), 1, ["holds 60 bands of 60 x 3 pixels", "axes seem to be swapped", "bands first"]),
}  # fmt: skip

PLACES = {
    "no coordinate system": (picture(crs=None), 1, ["image.tif: crs: has no coordinate system", "resolution_m"]),
    "no geotransform": (picture(transform=Affine.identity()), 1, ["image.tif: transform: has no geotransform", "resolution_m"]),
    "pixels of zero": (picture(transform=Affine(0, 0, LEFT, 0, 0, TOP)), 1, ["transform = (0.0", "no place or no area", "gdal_edit.py"]),
    "pixels of NaN": (picture(transform=Affine(np.nan, 0, LEFT, 0, -10, TOP)), 1, ["transform = (nan", "no place or no area"]),
    "origin at infinity": (picture(transform=Affine(10, 0, np.inf, 0, -10, TOP)), 1, ["inf", "no place or no area", "gdal_edit.py"]),
    "pixels of 1000 km": (picture(transform=place(pixel=1e6)), 1, ["makes pixels of 1e+06 x 1e+06 m, which cannot", "check the unit"]),
    "pixels of 10 um": (picture(transform=place(pixel=1e-5)), 1, ["makes pixels of 1e-05 x 1e-05 m, which cannot be meant", "check the unit"]),
    "oblong pixels": (picture(transform=Affine(10, 0, LEFT, 0, -1000, TOP)), 1, ["makes pixels of 10 x 1000 m", "10 times the other"]),
    "rotated": (picture(transform=Affine(10, 2, LEFT, 2, -10, TOP)), 1, ["is rotated or not north up", "data.regrid"]),
    "south up": (picture(transform=Affine(10, 0, LEFT, 0, 10, TOP)), 1, ["is rotated or not north up", "data.regrid"]),
    "degrees": (picture(crs="EPSG:4326", transform=DEGREES), 1, ["crs = 'EPSG:4326': is in degrees", "data.regrid"]),
    "metres said to be degrees": (picture(crs="EPSG:4326"), 1, ["crs = 'EPSG:4326': is in degrees", "data.regrid"]),
    "degrees said to be metres": (picture(transform=DEGREES), 1, ["makes pixels of 0.0001 x 0.0001 m", "check the unit"]),
    "no map projection": (picture(crs='LOCAL_CS["mine",UNIT["metre",1]]'), 1, ["is no map projection", "data.regrid"]),
    "another planet": (on_mars, 1, ["cannot be brought into the coordinate system of the scenes before it", "different planets"]),
}  # fmt: skip

ELEVATIONS = {
    "elevation truncated": (cut("s0/dem.tif"), 1, ["s0/dem.tif: cannot be read, it is truncated or damaged", "write the file anew"]),
    "elevation without system": (model(crs=None), 1, ["dem.tif: dem crs: has no coordinate system, the image has one", "gdal_edit.py -a_srs"]),
    "elevation in a wrong zone": (model(crs="EPSG:32610"), 1, ["dem.tif: dem = (", "does not overlap the image", "coordinate systems"]),
    "elevation said to be in degrees": (model(crs="EPSG:4326"), 1, ["dem crs = 'EPSG:4326': its coordinates", "assign the right system"]),
    "latitude for longitude": (axes_exchanged, 1, ["dem crs = 'EPSG:4326': its coordinates", "assign the right system"]),
    "elevation of zero pixels": (model(transform=Affine(0, 0, LEFT, 0, 0, TOP)), 1, ["dem transform = (0.0", "no place or no area"]),
    "elevation of half the globe": (half_the_globe, 0, []),
    "elevation south up": (flipped, 0, []),
    "elevation of part of the image": (model(GROUND[:25]), 0, ["% of the image have no elevation", "take a larger model"]),
    "three bands of elevation": (model(np.stack([GROUND] * 3)), 1, ["dem.tif: dem: has 3 bands of float32", "one band"]),
    "untagged -9999 of integers": (model(holed(-9999, np.int16)), 1, ["12 pixels hold -9999, which is no elevation", "dem_nodata = -9999"]),
    "untagged end of the type": (model(holed(65535, np.uint16)), 1, ["12 pixels hold 65535, which is no elevation", "dem_nodata = 65535"]),
    "infinite elevation": (model(holed(np.inf)), 1, ["12 pixels hold inf, which is no elevation", "dem_nodata"]),
    "gaps of 0": (model(holed(0)), 1, ["12 pixels hold 0, and no other is within", "dem_nodata = 0"]),
    "elevation all nodata": (model(GROUND * 0 - 9999, nodata=-9999), 1, ["dem nodata = -9999.0: has no data anywhere", "leave the dem column"]),
    "elevation all NaN": (model(GROUND * np.nan), 1, ["dem.tif: dem nodata: has no data anywhere in the image", "leave the dem column"]),
    "centimetres": (model((100 * GROUND).astype(np.int32)), 1, ["which is no elevation (-12,000 to 22,500 m)", "dem_unit"]),
    "feet": (model(GROUND / 0.3048), 0, ["half of the ground is steeper than", "dem_unit"]),
    "normalised": (model((GROUND - GROUND.min()) / np.ptp(GROUND)), 0, ["m, as if normalised", "elevations in metres"]),
    "constant": (model(GROUND * 0 + 500), 0, ["dem.tif: is flat", "leave the dem column empty"]),
}  # fmt: skip

LABELS = {
    "label truncated": (cut("s0/label.tif"), 1, ["s0/label.tif: cannot be read, it is truncated or damaged", "write the file anew"]),
    "unknown values": (label(mask(7)), 1, ["label.tif: label: holds 7 (300 pixels)", "labels must be 0 (background), 1 (landslide) or 255"]),
    "probabilities": (label(0.7 * mask(dtype=np.float32)), 1, ["label.tif: label: holds 0.7 (300 pixels)", "labels must be 0"]),
    "label of NaN": (label(np.where(mask() == 1, np.nan, 0).astype("f4")), 1, ["holds nan (300 pixels)", "ignore_values"]),
    "label of floats": (label(mask(dtype=np.float32)), 0, []),
    "0 and 255 in one scene": (label(mask(255)), 0, ["the label holds 255, which counts as ignore", "state what 255 is"]),
    "0 and 255 in all": (all_labels(mask(255)), 0, ["the label holds 255, which counts as ignore", "state what 255 is"]),
    "all ignored": (label(mask() * 0 + 255), 0, ["label.tif: labels no pixel that has image data", "remove the scene"]),
    "landslide everywhere": (label(mask() * 0 + 1), 0, ["split train holds nothing but landslide", "check the labels"]),
    "one band a class": (label(np.stack([1 - mask(), mask()])), 1, ["label.tif: label: has 2 bands of uint8", "one band"]),
    "label in another place": (label(transform=place(3)), 1, ["label.tif: label = (560000.0", "does not overlap the image", "same place"]),
    "label of half the image": (label(transform=place() @ Affine.translation(SIZE / 2, 0)), 0, ["the label covers 5", "rest is ignored"]),
    "rows and columns of the label exchanged": (label(mask()[:40].T), 0, ["the label covers 6", "rows and columns may be swapped"]),
    "label of finer pixels": (label(np.kron(mask(), np.ones((2, 2), np.uint8)), transform=place(pixel=5)), 0, []),
    "label without system": (label(crs=None), 1, ["label crs: has no coordinate system, the image has one", "gdal_edit.py -a_srs"]),
    "label in metres said to be degrees": (label(crs="EPSG:4326"), 1, ["label crs = 'EPSG:4326': its coordinates", "assign the right"]),
    "background tagged as nodata": (label(nodata=0), 0, []),
}  # fmt: skip
