"""Folds in keys, plans and working folders; the audit before a run: leaks are refused, or told in every record and over the report."""

import csv
import dataclasses
import hashlib
import io
import json

import numpy as np
import pytest
import rasterio
from affine import Affine

from benchmarks import auditing
from benchmarks.atomic import write_json
from benchmarks.auditing import furnish, load_audit, prepare, refuse_leaks
from benchmarks.cli import COMMITTED, numbers
from benchmarks.dataset import Portion, fingerprint, manifest_sha256
from benchmarks.leases import holder
from benchmarks.record import RunRecord, load_records
from benchmarks.report import collect, report_markdown
from benchmarks.report.tables import SCORES
from benchmarks.runner import Places, command, portions_of
from benchmarks.spec import RunSpec
from benchmarks.suite import Budget, Common, Data, Run, Split, Suite, plan
from datamodules.audit import audit
from datamodules.errors import UserError
from datamodules.scene import Scene, read_scenes, write_manifest

SUITE = Suite(
    "s",
    Data("set", root="/nowhere", folds=3, split=Split(block_m=640, buffer_m=0)),
    Budget(4, 2),
    [0, 1],
    [Run("image"), Run("long", budget={"max_steps": 8})],
    common=Common("deeplab"),
    references=["all_background"],
)


def write(path, array, x=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "count": len(array),
        "height": array.shape[1],
        "width": array.shape[2],
        "dtype": "uint8",
        "crs": "EPSG:32648",
    }
    with rasterio.open(path, "w", **profile, transform=Affine(10, 0, 640_000 + x, 0, -10, 4_000_000)) as file:
        file.write(array)


@pytest.fixture
def root(tmp_path):
    """Three scenes, 20 km apart, of 192 x 192 pixels of 10 m with four landslides each."""
    scenes, generator = [], np.random.default_rng(0)
    for number, split in enumerate(("train", "val", "test")):
        image, label = tmp_path / "set" / f"image{number}.tif", tmp_path / "set" / f"label{number}.tif"
        mask = np.zeros((1, 192, 192), np.uint8)
        for row, column in ((20, 20), (20, 150), (150, 20), (150, 150)):
            mask[0, row : row + 15, column : column + 15] = 1
        write(image, generator.integers(0, 255, (3, 192, 192), dtype=np.uint8), 20_000 * number)
        write(label, mask, 20_000 * number)
        scenes.append(Scene(f"s{number}", image, None, label, split, f"r{number}"))
    write_manifest(scenes, tmp_path / "set" / "scenes.csv")
    return tmp_path / "set"


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


# ---- keys and plans ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.name for path in COMMITTED.glob("*") if (path / "records").is_dir()))
def test_keys_of_committed_records_are_what_they_were(name):
    records = load_records(COMMITTED / name / "records")
    assert records
    for key, record in records.items():
        content = {
            field: record.spec[field] for field in ("method", "hyperparameters", "data_settings", "data_fingerprint", "budget", "seed")
        }
        before_folds = json.dumps({"protocol": 1, **content}, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(before_folds.encode()).hexdigest()[:12] == key == RunSpec.from_dict(record.spec).key


def test_each_row_runs_once_a_fold_and_seed():
    specs = plan(SUITE, fingerprint="f")
    assert [(spec.name, spec.fold, spec.seed) for spec in specs[:6]] == [
        ("all_background", 0, None),
        ("all_background", 1, None),
        ("all_background", 2, None),
        ("image", 0, 0),
        ("image", 0, 1),
        ("image", 1, 0),
    ]
    assert len({spec.key for spec in specs}) == len(specs) == 3 + 2 * 3 * 2
    assert len({spec.identity for spec in specs}) == 3
    assert {spec.key for spec in plan(SUITE, fingerprint="f", only_folds=[2, 0])} == {spec.key for spec in specs if spec.fold != 1}


@pytest.mark.parametrize("change", [{"block_m": 1280.0}, {"buffer_m": 10.0}, {"seed": 1}, {"by": "scene"}, {"by": "region"}], ids=str)
def test_other_folds_are_other_runs(change):
    other = dataclasses.replace(SUITE, data=dataclasses.replace(SUITE.data, split=dataclasses.replace(SUITE.data.split, **change)))
    keys = [{spec.key for spec in plan(suite, fingerprint="f")} for suite in (SUITE, other)]
    assert not keys[0] & keys[1]


def test_what_has_no_meaning_for_a_split_does_not_count():
    assert Split("region", seed=3, block_m=1).settings(3) == Split("region").settings(3) == {"folds": 3, "by": "region"}
    assert Split("scene", block_m=1).settings(3) == Split("scene").settings(3)


def test_folds_that_do_not_exist_are_refused():
    for only, words in (([3], "must be 0 to 2"), ([-1], "must be 0 to 2")):
        with pytest.raises(UserError, match=words):
            plan(SUITE, only_folds=only)
    with pytest.raises(UserError, match="has no folds"):
        plan(dataclasses.replace(SUITE, data=dataclasses.replace(SUITE.data, folds=None)), only_folds=[0])
    assert numbers("0,1") == numbers("[0, 1]") == numbers([0, 1]) == [0, 1]
    for wrong in ("-1", "a", ""):
        with pytest.raises(ValueError, match=r"."):
            numbers(wrong)


# ---- folds and audits on disk --------------------------------------------------------------------------------------------------------


def test_folds_are_made_once_audited_and_lie_beside_their_runs(root, runs, monkeypatch):
    contents = fingerprint(root, runs / "fingerprints.json")
    specs, places = plan(SUITE, fingerprint=contents), Places(runs, "s")
    portions = portions_of(specs, root, places)
    assert [portion.fold for portion in portions] == [0, 1, 2]
    prepare(portions)
    assert refuse_leaks(portions, allow=False) == []
    made = {path: path.read_bytes() for path in (runs / "data").rglob("*") if path.is_file()}
    monkeypatch.setattr("datamodules.audit.audit", lambda scenes: pytest.fail("audited before"))
    prepare(portions)
    assert {path: path.read_bytes() for path in (runs / "data").rglob("*") if path.is_file()} == made
    spec = next(spec for spec in specs if spec.fold == 1)
    work = places.run(spec.key)
    work.mkdir(parents=True)
    furnish(portions[1], work)
    assert command(spec, root, places)[command(spec, root, places).index("--data") + 1] == str(work / "scenes.csv")
    mine, theirs = read_scenes(work / "scenes.csv"), read_scenes(portions[1].folder)
    assert [(scene.name, scene.split, scene.image.resolve(), scene.label.resolve()) for scene in mine] == [
        (scene.name, scene.split, scene.image.resolve(), scene.label.resolve()) for scene in theirs
    ]
    assert manifest_sha256(work / "scenes.csv") == hashlib.sha256((work / "scenes.csv").read_bytes()).hexdigest()
    assert json.loads((work / "audit.json").read_text()) == load_audit(portions[1])
    tested = np.zeros((3, 192, 192), int)
    for portion in portions:
        for scene in read_scenes(portion.folder):
            if scene.split == "test":
                with rasterio.open(scene.label) as file:
                    tested[int(scene.name[1])] += file.read(1) != 255
    assert tested.max() == 1, "a pixel is tested in one fold at most"
    assert (tested > 0).mean() > 0.8


def test_the_same_data_elsewhere_make_the_same_folds(root, runs, tmp_path):
    import shutil

    shutil.copytree(root, tmp_path / "copy")
    hashes = []
    for place, folder in ((root, runs), (tmp_path / "copy", tmp_path / "other")):
        contents = fingerprint(place, folder / "fingerprints.json")
        portion = Portion(place, contents, folder, SUITE.data.split.settings(3), 0)
        prepare([portion])
        hashes.append((portion.folds.name, load_audit(portion)["scenes_sha256"]))
    assert hashes[0] == hashes[1]


def test_regions_are_folds_and_their_number_must_be_right(root, runs):
    prepare([Portion(root, "f", runs, Split("region").settings(3), 2)])
    tested = [
        scene.region for scene in read_scenes(Portion(root, "f", runs, Split("region").settings(3), 2).folder) if scene.split == "test"
    ]
    assert tested == ["r2"]
    wrong = Portion(root, "f", runs, Split("region").settings(4), 0)
    with pytest.raises(UserError, match="name 3 regions.*set folds to 3"):
        prepare([wrong])
    assert not wrong.folds.exists()


def test_a_run_reads_its_fold_and_keeps_audit_and_manifest(root, runs, monkeypatch):
    from benchmarks import checking
    from benchmarks import run as run_module

    suite = dataclasses.replace(SUITE, data=dataclasses.replace(SUITE.data, settings={"tile_size": 64}))
    places = Places(runs, "s")
    spec = plan(suite, fingerprint=fingerprint(root, places.fingerprints))[1]
    (portion,) = portions_of([spec], root, places)
    request = {"specs": [spec.to_dict()], "portions": [checking.plain(portion)]}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    assert checking.main([]) == 0
    work = places.run(spec.key)
    write_json(work / "spec.json", spec.to_dict())
    furnish(portion, work)
    _, _, _, *arguments = command(spec, root, places, options=["--wandb", "off"])
    assert run_module.main([argument.replace("{threads}", "1") for argument in arguments]) == 0
    record = load_records(places.records)[spec.key]
    assert record.spec["fold"] == 1
    assert record.data["audit"] == load_audit(portion)
    assert record.data["manifest_sha256"] == manifest_sha256(work / "scenes.csv")
    assert holder(work) == ""
    labelled = 0
    for scene in read_scenes(portion.folder):
        if scene.split == "test":
            with rasterio.open(scene.label) as file:
                labelled += int((file.read(1) != 255).sum())
    assert record.data["splits"]["test"]["pixels"] == labelled > 0


@pytest.fixture
def leaky(root, runs):
    """The test scene is the training scene."""
    with (root / "scenes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[2].update({name: rows[0][name] for name in ("image", "label")})
    with (root / "scenes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    portion = Portion(root, fingerprint(root, runs / "fingerprints.json"), runs)
    prepare([portion])
    return portion


def test_a_leak_is_refused_and_where_it_is_allowed_record_and_report_say_so(leaky, tmp_path):
    with pytest.raises(UserError, match=r"its splits leak: 2 leak\(s\).*zoo-data check.*--allow-leaks") as caught:
        refuse_leaks([leaky], allow=False)
    assert caught.value.exit_code == 1
    (told,) = refuse_leaks([leaky], allow=True)
    assert "overlap: s2, s0" in told or "overlap: s0, s2" in told
    furnish(leaky, tmp_path / "work")
    summary = json.loads((tmp_path / "work" / "audit.json").read_text())
    assert not summary["passed"]
    suite = dataclasses.replace(SUITE, data=Data("set", root="/nowhere"), references=[])
    report = report_markdown(collect(suite, {record.key: record for record in map(finished(summary), plan(suite, fingerprint="f"))}))
    loud = "**LEAK: 4 of 4 runs were made with --allow-leaks on splits that leak"
    assert loud in report[: report.index("| name |")]
    assert "audit: FAILED, 2 leak(s)" in report


def test_a_file_that_cannot_be_read_is_refused_even_where_leaks_are_allowed(root, runs):
    (root / "image1.tif").write_bytes((root / "image1.tif").read_bytes()[:500])
    portion = Portion(root, "f", runs)
    prepare([portion])
    with pytest.raises(UserError, match=r"cannot be used.*1 unreadable"):
        refuse_leaks([portion], allow=True)


def test_a_summary_of_another_version_is_made_anew(root, runs, monkeypatch):
    portion = Portion(root, "f", runs)
    prepare([portion])
    before = load_audit(portion)
    monkeypatch.setattr(auditing, "VERSION", auditing.VERSION + 1)
    assert load_audit(portion) is None
    prepare([portion])
    assert load_audit(portion) == {**before, "version": auditing.VERSION}


def test_a_summary_is_what_the_audit_found(root):
    scenes = read_scenes(root)
    report = audit(scenes)
    summary = auditing.summarise(report, scenes)
    assert summary["prevalence"] == pytest.approx(dict.fromkeys(("train", "val", "test"), 4 * 225 / 192**2))
    assert summary["findings"]["warning"] == len(report.findings)
    assert min(summary["distance_m"].values()) == pytest.approx(20_000 - 1920, abs=20)


def finished(summary, **scores):
    test = dict.fromkeys(("prevalence", "precision", "recall", "f1", "iou_landslide", "miou", "ap", "threshold"), 0.5) | scores

    def make(spec):
        data = {"name": "set", "fingerprint": "f", "manifest_sha256": "0" * 64, "splits": {}, "audit": summary}
        environment = {"git": {"commit": None}, "cpu": "c", "gpu": None, "threads": 1, "packages": {}, "date": "2026-01-01"}
        score = {**test, "iou_landslide": 0.1 * (spec.fold or 0) + 0.01 * (spec.seed or 0)}
        return RunRecord(
            spec.key, "finished", spec.to_dict(), {"val": score, "test": score}, cost={"seconds": 1.0}, environment=environment, data=data
        )

    return make


def test_a_report_over_folds_averages_them_and_lists_each():
    summary = {
        "version": 1,
        "passed": True,
        "findings": {"leak": 0, "error": 0, "warning": 2},
        "leaks": [],
        "distance_m": {"train-test": 512.4},
    }
    made = [finished(summary)(spec) for spec in plan(SUITE, fingerprint="f")]
    report = report_markdown(collect(SUITE, {record.key: record for record in made[:-1]}))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("|")]
    values = [0.1 * fold + 0.01 * seed for fold in range(3) for seed in range(2)]
    (row,) = (line for line in lines if line[:2] == ["image", "deeplab"])
    assert row[3] == "6"
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in row
    folds = [line for line in lines if line[0] == "image" and len(line) == 3 + len(SCORES) and line[1].isdigit()]
    assert [[*line[1:3], line[3 + list(SCORES).index("IoU")]] for line in folds] == [
        [str(fold), "2", f"{0.1 * fold + 0.005:.3f} ± 0.007"] for fold in range(3)
    ]
    assert ["long [1]", "deeplab", "–", "5 of 6"] in [line[:4] for line in lines]
    assert "[1] own budget: max_steps 8 instead of 4." in report
    assert ["long", "2", "1", "not run"] in [line[:4] for line in lines]
    assert "- Folds: folds 3, by blocks, block_m 640, buffer_m 0, seed 0." in report
    assert "audit: passed; 2 warning(s); apart at least train-test 512 m" in report
