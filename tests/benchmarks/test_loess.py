"""loess.yaml is the papers' setting, and its small stand-in runs to a report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import zoo
from benchmarks.suite import load_suite, plan, with_data

REPOSITORY = Path(__file__).parents[2]
ROWS = {spec.name: spec for spec in plan(load_suite("loess")) if not spec.is_reference}


def flat(values, place=""):
    return {
        name: item
        for key, value in values.items()
        for name, item in (flat(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}).items()
    }


@pytest.mark.parametrize("name", ["ICSSN", "MRIFE", "HPCL-Net"])
def test_rows_are_the_configurations_of_the_papers(name):
    spec = ROWS[name]
    paper = yaml.safe_load((REPOSITORY / "zoo" / "configs" / f"{spec.method}_paper.yaml").read_text(encoding="utf-8"))
    mine, theirs = (flat(zoo.check_method(spec.method, given)) for given in (spec.hyperparameters, paper["model"]["init_args"]))
    unread = {"network.terrain"} if mine["network.inputs"] == "image" else set()
    assert {key: value for key, value in mine.items() if key not in unread} == {
        key: value for key, value in theirs.items() if key not in unread
    }
    assert spec.data_settings == {key: paper["data"][key] for key in ("tile_size", "landslide_share")}
    assert spec.budget["max_steps"] == paper["trainer"]["max_steps"]
    assert spec.budget["precision"] == paper["trainer"]["precision"]
    assert spec.budget["batch_size"] == paper["data"]["batch_size"]


def test_a_baseline_sees_what_its_method_sees_and_differs_in_the_method_alone():
    suite = load_suite("loess")
    assert suite.baselines() == {
        "ICSSN": "deeplab (image)",
        "MRIFE": "deeplab (image)",
        "HPCL-Net": "deeplab (image + DEM, two encoders)",
    }
    for name, baseline in suite.baselines().items():
        mine, theirs = ROWS[name], ROWS[baseline]
        assert (mine.budget, mine.data_settings) == (theirs.budget, theirs.data_settings)
        left, right = flat(mine.hyperparameters), flat(theirs.hyperparameters)
        assert {key for key, value in right.items() if left.get(key) != value} <= {"network.fusion"}


def test_the_stand_in_has_the_rows_of_the_file_it_stands_for():
    small, large = load_suite("loess_small"), load_suite("loess")
    assert [(run.name, run.method, run.baseline, run.hyperparameters) for run in small.runs] == [
        (run.name, run.method, run.baseline, run.hyperparameters) for run in large.runs
    ]
    assert small.references == large.references


def test_a_folder_of_the_users_takes_the_place_of_the_variable(tmp_path):
    suite = with_data(load_suite("loess"), root=str(tmp_path), folds=5, published_set="hpcl")
    assert (suite.data.root, suite.data.folds, suite.data.published_set) == (str(tmp_path), 5, "hpcl")


@pytest.mark.slow
def test_the_stand_in_runs_to_a_report(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "run", "loess_small", "--runs", str(tmp_path), "--wandb", "off"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "loess_small" / "REPORT.md").read_text(encoding="utf-8")
    for name in ("HPCL-Net", "ICSSN", "MRIFE"):
        assert f"| {name} | deeplab (image" in report, "its gain over the own baseline"
    assert "audit: passed" in report
    assert "Published and measured" not in report
    again = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "nothing to do" in again.stdout
    assert (tmp_path / "loess_small" / "REPORT.md").read_text(encoding="utf-8") == report
