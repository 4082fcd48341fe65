"""Regenerate goldens/terrain_gdaldem.npz: a made-up elevation model and what `gdaldem` (Debian package gdal-bin) computes from it.

Run from the repository root: python tests/datamodules/make_terrain_goldens.py
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

GOLDENS = Path(__file__).parent / "goldens" / "terrain_gdaldem.npz"
NODATA = -9999.0
PIXEL_M = 10.0
MODES = {
    "slope": ["slope"],
    "slope_zt": ["slope", "-alg", "ZevenbergenThorne"],
    "aspect": ["aspect"],
    "aspect_zt": ["aspect", "-alg", "ZevenbergenThorne"],
    "hillshade": ["hillshade"],
    "hillshade_low_east": ["hillshade", "-az", "100", "-alt", "20"],
    "multidirectional_hillshade": ["hillshade", "-multidirectional"],
    "tri_riley": ["TRI", "-alg", "Riley"],
    "tri_wilson": ["TRI", "-alg", "Wilson"],
    "tpi": ["TPI"],
    "roughness": ["roughness"],
}


def gdaldem(source: Path, modes: dict[str, list[str]] = MODES) -> dict[str, np.ndarray]:
    """Run every mode on a raster; nodata comes back as NaN."""
    program = shutil.which("gdaldem")
    if program is None:
        raise FileNotFoundError("gdaldem is not installed (Debian package gdal-bin)")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (mode, *options) in modes.items():
            target = Path(folder) / f"{name}.tif"
            subprocess.run([program, mode, str(source), str(target), "-q", *options], check=True)
            with rasterio.open(target) as raster:
                values = raster.read(1).astype(np.float32)
                results[name] = np.where(values == raster.nodata, np.nan, values).astype(np.float32)
    return results


def made_up_elevation() -> np.ndarray:
    """Rough hills of 60 x 48 pixels with a lake (flat) and missing elevations: alone, in a block, at the border and in a corner."""
    rng = np.random.default_rng(7)
    dem = 1500 + 900 * gaussian_filter(rng.standard_normal((60, 48)), 4) + rng.standard_normal((60, 48))
    dem[40:50, 10:20] = 1480.0
    dem[5, 7] = dem[20:24, 30:37] = dem[30, 0] = dem[0, 0] = dem[59, 40:44] = np.nan
    return dem.astype(np.float32)


def main() -> None:
    """Write the goldens."""
    dem = made_up_elevation()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "dem.tif"
        profile = {"driver": "GTiff", "height": dem.shape[0], "width": dem.shape[1], "count": 1, "dtype": "float32", "nodata": NODATA}
        with rasterio.open(source, "w", crs="EPSG:32613", transform=from_origin(5e5, 4e6, PIXEL_M, PIXEL_M), **profile) as raster:
            raster.write(np.where(np.isnan(dem), NODATA, dem).astype(np.float32), 1)
        results = gdaldem(source)
    GOLDENS.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDENS, dem=dem, **results)
    version = subprocess.run(["gdalinfo", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    print(f"wrote {GOLDENS} with {version}")


if __name__ == "__main__":
    main()
