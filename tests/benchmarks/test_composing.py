"""Suite files that extend others, and runs that hold a grid."""

import copy
import re

import pytest
import yaml

from benchmarks.composing import SUITES
from benchmarks.grids import expand
from benchmarks.suite import load_suite, plan
from datamodules.errors import UserError

BASE = {
    "name": "base",
    "data": {"name": "set", "root": "/nowhere", "settings": {"tile_size": 64, "halo": 2}},
    "budget": {"max_steps": 10, "validate_every": 5},
    "seeds": [0, 1],
    "common": {"method": "deeplab", "hyperparameters": {"network": {"encoder": "tiny", "terrain": ["slope", "tpi"]}}},
    "runs": [
        {"name": "image", "hyperparameters": {"network": {"inputs": "image"}}},
        {"name": "both", "hyperparameters": {"network": {"inputs": "both"}}},
    ],
}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    write("base.yaml", BASE)
    return write


def test_mappings_merge_lists_are_replaced_runs_merge_by_name(write):
    child = {
        "extends": "base.yaml",
        "name": "child",
        "seeds": [7],
        "data": {"settings": {"tile_size": 32}},
        "common": {"hyperparameters": {"network": {"terrain": ["elevation"]}}},
        "runs": [
            {"name": "dem", "hyperparameters": {"network": {"inputs": "dem"}}},
            {"name": "image", "hyperparameters": {"loss": {"bce_weight": 2}}},
        ],
    }
    suite = load_suite(write("child.yaml", child))
    assert (suite.name, suite.seeds, suite.budget.max_steps) == ("child", [7], 10)
    assert suite.data.settings == {"tile_size": 32, "halo": 2}
    assert suite.common.hyperparameters == {"network": {"encoder": "tiny", "terrain": ["elevation"]}}
    assert [run.name for run in suite.runs] == ["image", "both", "dem"]
    assert suite.runs[0].hyperparameters == {"network": {"inputs": "image"}, "loss": {"bce_weight": 2}}


def test_chains_and_shipped_suites_and_other_folders(write):
    write("child.yaml", {"extends": "base.yaml", "name": "child", "seeds": [3]})
    suite = load_suite(write("deeper/last.yaml", {"extends": "../child.yaml", "name": "last", "without": ["both"]}))
    assert (suite.seeds, [run.name for run in suite.runs]) == ([3], ["image"])
    shipped = load_suite(write("mine.yaml", {"extends": "demo", "name": "mine", "seeds": [5]}))
    assert [run.name for run in shipped.runs] == [run.name for run in load_suite("demo").runs]


def test_an_extending_suite_has_the_runs_of_the_extended_one(write):
    same = load_suite(write("same.yaml", {"extends": "base.yaml", "name": "same"}))
    base = load_suite(write("base.yaml", BASE))
    assert [spec.key for spec in plan(same, fingerprint="f")] == [spec.key for spec in plan(base, fingerprint="f")]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"x.yaml": {"extends": "no.yaml", "name": "x"}}, ["x.yaml", "extends = 'no.yaml'", "no such suite file"]),
        ({"x.yaml": {"extends": "marz", "name": "x"}}, ["x.yaml", "extends = 'marz'", "did you mean mars"]),
        ({"x.yaml": {"extends": ["base.yaml"], "name": "x"}}, ["x.yaml", "extends", "one file"]),
        ({"x.yaml": {"extends": "x.yaml", "name": "x"}}, ["x.yaml", "extends itself (x.yaml -> x.yaml)"]),
        (
            {"x.yaml": {"extends": "y.yaml", "name": "x"}, "y.yaml": {"extends": "x.yaml", "name": "y"}},
            ["y.yaml: extends", "extends itself (x.yaml -> y.yaml -> x.yaml)"],
        ),
        ({"x.yaml": {"extends": "base.yaml"}}, ["x.yaml: name", "name of its own"]),
        ({"x.yaml": {"extends": "base.yaml", "name": "x", "sedes": [1]}}, ["x.yaml: sedes", "did you mean seeds"]),
        (
            {"x.yaml": {"extends": "y.yaml", "name": "x"}, "y.yaml": {"extends": "base.yaml", "name": "y", "budget": {"max_step": 1}}},
            ["y.yaml: budget.max_step", "did you mean max_steps"],
        ),
        ({"x.yaml": {"extends": "base.yaml", "name": "x", "without": ["imag"]}}, ["x.yaml: without = 'imag'", "did you mean image"]),
        ({"x.yaml": {**BASE, "without": ["image"]}}, ["x.yaml: without", "nothing to leave out"]),
        ({"x.yaml": {"extends": "base.yaml", "name": "x", "data": {"synthesize": {}}}}, ["x.yaml", "exactly one", "null"]),
        ({"x.yaml": {"extends": "base.yaml", "name": "x", "runs": [{"name": "image", "baseline": "bot"}]}}, ["did you mean both"]),
        ({"x.yaml": {"extends": "base.yaml", "name": "x", "data": {"folds": 2}}}, ["data.folds = 2", "below 3"]),
    ],
)
def test_mistakes_name_the_file_that_holds_them(write, files, told):
    for name, content in files.items():
        path = write(name, content)
    with pytest.raises(UserError) as caught:
        load_suite(path.replace("y.yaml", "x.yaml"))
    assert caught.value.exit_code == 2
    for words in told:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_data_replace_both_ways_of_stating_them(write):
    suite = load_suite(write("x.yaml", {"extends": "base.yaml", "name": "x", "data": {"root": None, "synthesize": {"scenes": 2}}}))
    assert (suite.data.root, suite.data.synthesize.scenes) == (None, 2)


# ---- grids ---------------------------------------------------------------------------------------------------------------------------


def test_a_grid_is_the_product_of_its_values_over_what_the_run_states(write):
    run = {
        "name": "HPCL",
        "method": "hpcl_net",
        "hyperparameters": {"contrast": {"momentum": 0.9}},
        "grid": {"contrast.contrast_weight": [0.05, 0.1], "network.encoder": ["a", "b"], "budget.max_steps": [20]},
    }
    suite = load_suite(write("x.yaml", {**BASE, "runs": [run]}))
    assert [row.name for row in suite.runs] == [
        f"HPCL, contrast_weight={weight}, encoder={encoder}, max_steps=20" for weight in (0.05, 0.1) for encoder in "ab"
    ]
    specs = plan(suite, fingerprint="f")
    assert len(specs) == 4 * len(BASE["seeds"])
    third = specs[4]
    assert third.hyperparameters["contrast"] == {"momentum": 0.9, "contrast_weight": 0.1}
    assert third.hyperparameters["network"] == {"encoder": "a", "terrain": ["slope", "tpi"]}
    assert third.budget["max_steps"] == 20


def test_a_row_of_a_grid_is_the_run_that_one_would_write_by_hand(write):
    grid = load_suite(write("x.yaml", {**BASE, "runs": [{"name": "a", "grid": {"network.inputs": ["image", "both"]}}]}))
    assert [spec.key for spec in plan(grid, fingerprint="f")] == [
        spec.key for spec in plan(load_suite(write("base.yaml", BASE)), fingerprint="f")
    ]


def test_names_tell_places_and_values_apart():
    grid = {"a.weight": [0.1], "b.weight": [None], "c.layers": [["slope", "tpi"]], "d.on": [True]}
    (row,) = expand([{"name": "n", "grid": grid}])
    assert row["name"] == "n, a.weight=0.1, b.weight=null, layers=slope+tpi, on=true"


def test_rows_of_a_grid_share_nothing():
    runs = [{"name": "n", "hyperparameters": {"a": {"b": [1]}}, "grid": {"a.c": [1, 2]}}]
    before = copy.deepcopy(runs)
    first, second = expand(runs)
    first["hyperparameters"]["a"]["b"].append(2)
    assert second["hyperparameters"] == {"a": {"b": [1], "c": 2}}
    assert runs == before


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"a.b": 3}, ["runs[0].grid.a.b = 3", "list"]),
        ({"a.b": []}, ["runs[0].grid.a.b", "list"]),
        ({"a.b": [1, 1]}, ["runs[0].grid.a.b = 1", "twice"]),
        ([1], ["runs[0].grid", "map"]),
        ({"name.deep": [1]}, ["below name"]),
        ({"budget.max_step": [1]}, ["budget.max_step", "did you mean max_steps"]),
    ],
)
def test_wrong_grids_are_refused(write, grid, told):
    with pytest.raises(UserError) as caught:
        load_suite(write("x.yaml", {**BASE, "runs": [{"name": "n", "hyperparameters": {"name": 1}, "grid": grid}]}))
    for words in told:
        assert words in str(caught.value)


def test_the_examples_of_the_readme_are_suites(tmp_path):
    examples = re.findall(r"```yaml\n(.*?)```", (SUITES / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for number, example in enumerate(examples):
        (tmp_path / f"{number}.yaml").write_text(example.replace("extends: mars.yaml", "extends: mars"))
    mine, image = (load_suite(str(tmp_path / f"{number}.yaml")) for number in range(2))
    assert [run.name for run in mine.runs if "grid" in run.name or "weight" in run.name] == [
        f"HPCL-Net, contrast_weight={weight}, encoder={encoder}" for weight in (0.05, 0.1) for encoder in ("resnet18", "resnet50")
    ]
    assert {run.method or image.common.method for run in image.runs} == {"deeplab", "icssn", "mrife"}
    assert len(plan(mine)) == len(mine.references) * 5 + len(mine.runs) * 5 * 3
