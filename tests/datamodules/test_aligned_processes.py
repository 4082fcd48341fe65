"""Aligned layers under load: two processes at once, a kill at any moment, a full disk, and a scene that memory could not hold."""

import os
import random
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from affine import Affine

from datamodules.aligned import UNFINISHED, is_whole
from datamodules.aligned_cache import AlignedCache
from datamodules.scene import read_scenes

ROOT = Path(__file__).parents[2]
LIMIT_MB = 1500


def make_scenes(folder, number, size):
    """Scenes whose elevation model and label lie on other grids than the image."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = ["scene,image,dem,label,split,region"]
    for scene in range(number):
        at = Affine(2, 0, 500000 + scene * 1e5, 0, -2, 4000000)
        layers = {
            "image": (rng.integers(0, 255, (3, size, size), dtype=np.uint8), at),
            "dem": (rng.normal(1000, 30, (1, size // 3, size // 3)).astype("float32"), at @ Affine.scale(3.1)),
            "label": (rng.integers(0, 2, (1, size // 2, size // 2), dtype=np.uint8), at @ Affine.scale(2)),
        }
        for role, (values, transform) in layers.items():
            profile = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
            with rasterio.open(
                folder / f"{role}{scene}.tif", "w", driver="GTiff", crs="EPSG:32648", transform=transform, **profile
            ) as file:
                file.write(values)
        lines.append(",".join([f"s{scene}", *(f"{role}{scene}.tif" for role in layers), "train", ""]))
    (folder / "scenes.csv").write_text("\n".join(lines))
    return folder


def command(root, place, *options):
    return [sys.executable, "-m", "datamodules", "align", str(root), "--cache-dir", str(place), "--untiled", *map(str, options)]


def start(root, place, *options, **how):
    return subprocess.Popen(command(root, place, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def finish(process):
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def contents(place):
    return {file.name: file.read_bytes() for file in place.glob("*.tif")}


def layers_of(root, place):
    return AlignedCache(place, root, margin=1, dem_resampling="cubic", untiled=True).layers(read_scenes(root))


@pytest.mark.slow
def test_two_processes_at_once_make_each_layer_once(tmp_path):
    root = make_scenes(tmp_path / "data", 2, 700)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert finish(start(root, alone, "--processes", 1))[0] == 0
    results = [finish(process) for process in [start(root, shared, "--processes", number) for number in (1, 2)]]
    assert [code for code, _, _ in results] == [0, 0], results
    assert contents(shared) == contents(alone)
    assert len(contents(shared)) == 6
    assert not list((shared / UNFINISHED).glob("*.tif*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_leaves_nothing_that_is_taken_for_whole_and_no_process(tmp_path):
    root = make_scenes(tmp_path / "data", 2, 1600)
    alone, place = tmp_path / "alone", tmp_path / "cache"
    begin = time.monotonic()
    assert finish(start(root, alone, "--processes", 2))[0] == 0
    duration = time.monotonic() - begin
    expected, dice, unfinished = contents(alone), random.Random(0), 0
    for _ in range(5):
        process = start(root, place, "--processes", 2)
        time.sleep(dice.uniform(0.3, 0.95) * duration)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
        unfinished += bool(list((place / UNFINISHED).glob("*.tif")))
        found = contents(place)
        assert {name: expected[name] for name in found} == found
        if len(found) == len(expected):
            for file in place.glob("*.tif"):
                file.unlink()
    assert unfinished, "no kill hit a file that was being written"
    assert finish(start(root, place, "--processes", 2))[0] == 0
    assert contents(place) == expected
    assert all(is_whole(layer.path, layer.fingerprint) for layer in layers_of(root, place))
    assert not list((place / UNFINISHED).glob("*.tif*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_file_that_cannot_grow_is_a_clear_error_and_no_half_file(tmp_path):
    root = make_scenes(tmp_path / "data", 1, 600)
    limit = 200_000  # bytes; the image takes a megabyte

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code, _, errors = finish(start(root, tmp_path / "cache", "--processes", 1, preexec_fn=limited))
    assert code == 1
    assert "cannot be written" in errors
    assert "make room, or choose another cache_dir" in errors
    assert "Traceback" not in errors
    assert all(len(content) <= limit for content in contents(tmp_path / "cache").values())
    assert not list((tmp_path / "cache" / UNFINISHED).glob("*.tif*"))


@pytest.mark.slow
@pytest.mark.parametrize("free_kb", [100, 600, 1500])
def test_a_full_disk_is_a_clear_error_and_no_half_file(tmp_path, free_kb):
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={free_kb}k", "tmpfs", str(place)], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("tmpfs cannot be mounted")
    try:
        root = make_scenes(tmp_path / "data", 1, 900)
        code, _, errors = finish(start(root, place / "cache", "--processes", 1))
        assert code == 1
        assert "cannot be written" in errors
        assert "MB are free there" in errors
        assert "Traceback" not in errors
        layers = {layer.path.name: layer.fingerprint for layer in layers_of(root, place / "cache")}
        for file in (place / "cache").glob("*.tif"):
            assert is_whole(file, layers[file.name])
        assert not list((place / "cache" / UNFINISHED).glob("*.tif*"))
    finally:
        subprocess.run(["umount", str(place)], check=True)


MEASURED = """
import resource, sys
from pathlib import Path
from datamodules.aligned_cache import AlignedCache
from datamodules.reading import SceneReader
from datamodules.scene import read_scenes
from datamodules.statistics import data_statistics
from datamodules.windows import index_windows

root, place = Path(sys.argv[1]), Path(sys.argv[2])
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("start", peak(), flush=True)
scenes = read_scenes(root)
cache = AlignedCache(place, root, margin=1, dem_resampling="cubic", untiled=True)
layers = cache.layers(scenes)
cache.build(layers, 1)
print("align", peak(), len(layers), flush=True)
reader = SceneReader(scenes[0], 3, 1, "cubic", aligned=cache.files(scenes)["big"])
index = index_windows([reader], 512, 512, once=True)
print("index", peak(), len(index), flush=True)
statistics = data_statistics([reader], 3, 512)
print("statistics", peak(), statistics.image_mean[0], statistics.elevation_mean, flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_scene(tmp_path):
    size, coarse = 20_000, 1250
    data, at = tmp_path / "data", Affine(1, 0, 500000, 0, -1, 4000000)
    data.mkdir()
    sides = {"width": size, "height": size, "crs": "EPSG:32648", "transform": at, "compress": "deflate", "zlevel": 1}
    strip = np.full((3, 500, size), 7, dtype=np.uint8)
    with rasterio.open(data / "image.tif", "w", driver="GTiff", count=3, dtype="uint8", interleave="pixel", **sides) as file:
        for row in range(0, size, 500):
            strip[:, ::50] = 8 + row // 500
            file.write(strip, window=rasterio.windows.Window(0, row, size, 500))
    slope = np.add.outer(np.arange(coarse), np.arange(coarse)).astype("float32")
    # A quarter of the image is enough of the dear warp: outside of it there is nothing to compute, and as much to hold.
    sides |= {"width": coarse, "height": coarse, "transform": at @ Affine.scale(size / coarse / 2)}
    with rasterio.open(data / "dem.tif", "w", driver="GTiff", count=1, dtype="float32", **sides) as file:
        file.write(slope, 1)
    square = [[500000 + x, 4000000 - y] for x, y in ((100, 100), (9000, 100), (9000, 9000), (100, 9000), (100, 100))]
    (data / "label.geojson").write_text(
        '{"type":"FeatureCollection","crs":{"type":"name","properties":{"name":"urn:ogc:def:crs:EPSG::32648"}},"features":[{"type":"Feature",'
        f'"properties":{{}},"geometry":{{"type":"Polygon","coordinates":[{square}]}}}}]}}'
    )
    (data / "scenes.csv").write_text("scene,image,dem,label,split,region\nbig,image.tif,dem.tif,label.geojson,train,\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED), str(data), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    steps = {line.split()[0]: [float(part) for part in line.split()[1:]] for line in done.stdout.splitlines()}
    assert steps["align"][1] == 3
    assert steps["index"][1] == 40**2
    # 490 of 500 rows hold 7, the others 8 and up by strip; the plane's mean is that of its middle.
    assert steps["statistics"][1] == pytest.approx(0.98 * 7 + 0.02 * (8 + 19.5), rel=1e-9)
    assert steps["statistics"][2] == pytest.approx(coarse - 1, rel=1e-4)
    assert steps["statistics"][0] < LIMIT_MB, done.stdout
