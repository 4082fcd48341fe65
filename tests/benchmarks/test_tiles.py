"""Tiles of the report: the same for all runs, chosen without a look at results, drawn as they were scored."""

import dataclasses

import cv2
import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.record import RunRecord, load_records, save_record
from benchmarks.report import collect
from benchmarks.report.page import page_html, tiles
from benchmarks.report.page.png import palette_png
from benchmarks.suite import load_suite, plan
from benchmarks.tiles import MAX_SIDE, Tile, load_tiles, pick, save_tiles, wanted
from datamodules.errors import UserError
from zoo.metrics.pixels import pixel_scores

SUITE = """
name: looked_at
data: {name: set, root: set}
budget: {max_steps: 20, validate_every: 10, batch_size: 2}
seeds: [0, 1]
common: {method: deeplab}
runs:
  - {name: "<script>one", hyperparameters: {network: {inputs: image}}}
  - {name: other, hyperparameters: {network: {inputs: both}}}
"""


def tile(generator, landslide=0.3, shape=(20, 31)):
    label = (generator.uniform(size=shape) < landslide).astype(np.uint8)
    label[0, :3] = 255
    return Tile(landslide, (5.0, 5.0), label, b"RIFF image", b"RIFF shade", generator.integers(0, 256, shape).astype(np.uint8))


def test_the_choice_depends_on_names_and_labels_alone_and_can_be_made_in_parts():
    generator = np.random.default_rng(0)
    offered = {f"scene{index}:0:0": tile(generator, (0.0, 0.005, 0.2, 0.5)[index % 4], (2, 2)) for index in range(60)}
    whole = pick(offered.items())
    shares = [kept.landslide for kept in whole.values()]
    assert [share > 0 for share in shares] == [True] * 6 + [False] * 2
    assert 0.005 not in shares, "a few pixels show no landslide"
    parts = list(offered.items())
    generator.shuffle(parts)
    kept = {}
    for start in range(0, 60, 7):
        kept = pick([*kept.items(), *parts[start : start + 7]])
    assert list(kept) == list(whole)
    assert wanted({}) == []


def test_tiles_come_back_and_runs_on_the_same_ground_share_it(tmp_path):
    generator = np.random.default_rng(0)
    first = {f"a{index}:0:0": tile(generator, shape=(4 + index, 7)) for index in range(3)}
    second = {name: dataclasses.replace(one, scores=255 - one.scores) for name, one in first.items()}
    save_tiles("one", first, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save_tiles("two", second, tmp_path)
    save_tiles("one", first, tmp_path)
    assert len(list(tmp_path.glob("ground-*.npz"))) == 1
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())
    for key, tiles_of in (("one", first), ("two", second)):
        for name, one in load_tiles(key, tmp_path).items():
            assert one.label.tolist() == tiles_of[name].label.tolist()
            assert one.scores.tolist() == tiles_of[name].scores.tolist()
            assert (one.image, one.hillshade, one.landslide, one.pixel_m) == (b"RIFF image", b"RIFF shade", 0.3, (5.0, 5.0))
    assert load_tiles("older", tmp_path) == {}
    save_tiles("none", {}, tmp_path)
    assert load_tiles("none", tmp_path) == {}


@pytest.mark.parametrize("damage", ["truncate", "remove ground"])
def test_damaged_tiles_are_named_with_a_remedy(tmp_path, damage):
    save_tiles("one", {"a:0:0": tile(np.random.default_rng(0))}, tmp_path)
    if damage == "truncate":
        path = tmp_path / "one.tiles.npz"
        path.write_bytes(path.read_bytes()[:50])
    else:
        path = next(tmp_path.glob("ground-*"))
        path.unlink()
    with pytest.raises(UserError, match=f"{path.name}.*delete one.tiles.npz"):
        load_tiles("one", tmp_path)


@pytest.mark.parametrize("threshold", [0.0, 1 / 256, 0.5, 0.7, 1.0])
def test_an_error_map_counts_what_the_scores_count(threshold):
    """Against a loop over pixels, by the rule that a probability of at least the threshold is landslide."""
    one = tile(np.random.default_rng(1))
    classes = tiles.error_classes(one.scores, one.label, threshold)
    for score, label, found in zip(one.scores.flat, one.label.flat, classes.flat, strict=True):
        predicted = score / 256 >= threshold
        assert found == (4 if label == 255 else {(1, True): 1, (0, True): 2, (1, False): 3, (0, False): 0}[int(label), bool(predicted)])


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (64, 33)])
def test_pngs_are_those_of_an_independent_reader(shape):
    pixels = np.random.default_rng(2).integers(0, 5, shape).astype(np.uint8)
    colours = [(1, 2, 3), (255, 255, 255), (213, 94, 0), (0, 0, 250), None]
    read = cv2.imdecode(np.frombuffer(palette_png(pixels, colours), np.uint8), cv2.IMREAD_UNCHANGED)
    expected = np.array([(*colour[::-1], 255) if colour else (0, 0, 0, 0) for colour in colours])[pixels]
    np.testing.assert_array_equal(read, expected)


# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear light.
VISION = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "grey print": [[0.2126, 0.7152, 0.0722]] * 3,
    "normal": np.eye(3),
}


@pytest.mark.parametrize("vision", VISION)
def test_errors_differ_for_every_kind_of_colour_vision(vision):
    """At least 15 units of CIE L*a*b* apart, where 2.3 can just be noticed."""
    colours = np.array([tiles.HIT, tiles.FALSE_ALARM, tiles.MISSED, tiles.BACKGROUND]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    srgb = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(srgb[None].astype(np.float32), cv2.COLOR_RGB2Lab)[0]
    for first in range(4):
        for second in range(first):
            assert np.linalg.norm(lab[first] - lab[second]) > 15


@pytest.fixture
def made(tmp_path):
    """Records of two rows and two seeds; only the second row kept tiles with its first seed."""
    import torch

    (tmp_path / "looked_at.yaml").write_text(SUITE)
    suite, generator = load_suite(str(tmp_path / "looked_at.yaml")), np.random.default_rng(0)
    ground = {f"s{index}:0:0": tile(generator, 0.3 * (index % 2)) for index in range(16)}
    kept = pick(ground.items())
    specs = plan(suite, fingerprint="f")
    for spec in specs:
        histograms = {name: generator.integers(0, 9, (2, 256)) for name in ground}
        scores = pixel_scores(torch.from_numpy(sum(histograms.values())), 0.5)
        record = RunRecord(
            spec.key,
            "finished",
            spec.to_dict(),
            metrics={"val": scores, "test": scores},
            environment={"git": {"commit": None}, "cpu": "c", "gpu": None, "threads": 1, "packages": {}, "date": "2026-01-02"},
            data={"name": "set", "fingerprint": "f", "splits": {}, "manifest_sha256": None},
        )
        save_record(record, tmp_path / "records", {"val": histograms, "test": histograms})
    return tmp_path, suite, specs, kept


def page_of(folder, suite):
    return page_html(collect(suite, load_records(folder / "records"), folder / "records"), folder / "records")


def test_the_page_shows_tiles_says_where_there_are_none_and_hides_what_may_not_be_shown(made):
    folder, suite, specs, kept = made
    assert "these records were made without pictures" in page_of(folder, suite)
    for spec in specs[:1] + specs[2:]:
        save_tiles(spec.key, kept, folder / "records")
    page = page_of(folder, suite)
    assert page == page_of(folder, suite)
    assert page.count('<figure class="tile">') == len(kept) == 8
    assert "Errors of &lt;script&gt;one on s" in page
    assert "<script>one" not in page
    name, one = next(iter(kept.items()))
    classes = tiles.error_classes(one.scores, one.label, load_records(folder / "records")[specs[0].key].metrics["test"]["threshold"])
    hits, alarms, missed = ((classes == place).sum() for place in (1, 2, 3))
    assert f"Errors of other on {name}: {hits} pixels found, {alarms} false alarms, {missed} missed" in page
    assert "50 m" in page, "31 pixels of 5 m: a third of the picture is near 50 m"
    (folder / "records" / f"{specs[0].key}.tiles.npz").unlink()
    assert "Without pictures: &lt;script&gt;one; their records are older." in page_of(folder, suite)
    hidden = page_of(folder, dataclasses.replace(suite, data=dataclasses.replace(suite.data, pictures=False)))
    assert "data:image" not in hidden
    assert "pictures: false" in hidden


def test_the_largest_tiles_of_many_rows_stay_under_eight_megabytes(made, monkeypatch):
    """Noise does not compress: no real map is as large."""
    folder, suite, specs, _ = made
    generator = np.random.default_rng(3)
    image = cv2.imencode(".webp", generator.integers(0, 256, (MAX_SIDE, MAX_SIDE, 3)).astype(np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 80])[
        1
    ].tobytes()
    large = {
        f"s{index}:0:0": dataclasses.replace(tile(generator, 0.3, (MAX_SIDE, MAX_SIDE)), image=image, hillshade=image) for index in range(8)
    }
    for spec in specs:
        save_tiles(spec.key, large, folder / "records")
    assert (folder / "records" / f"{specs[0].key}.tiles.npz").stat().st_size < 1e6
    rows = collect(suite, load_records(folder / "records"), folder / "records").rows * 10
    section = tiles.tiles_section(collect(suite, {}), rows, folder / "records")
    assert len(section) < 5e6
    assert "to keep this page small" in section


@pytest.mark.parametrize("pictures", [True, False])
def test_no_run_keeps_a_picture_that_the_suite_forbids(tmp_path, capsys, monkeypatch, pictures):
    """As the commands of the runs say it, which are all that a run is told."""
    monkeypatch.setattr("benchmarks.cli.check_in_child", lambda nursery, specs: None)
    monkeypatch.setattr("benchmarks.launchers.options.visible_gpus", lambda nursery: [])
    content = SUITE.replace("root: set", f"root: {tmp_path}, pictures: {str(pictures).lower()}")
    (tmp_path / "looked_at.yaml").write_text(content)
    monkeypatch.setattr("benchmarks.runner.fingerprint", lambda root, cache: "f")
    assert main(["run", str(tmp_path / "looked_at.yaml"), "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    commands = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert len(commands) == 4
    assert all(("--no-pictures" in command) is not pictures for command in commands)
