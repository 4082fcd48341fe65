"""Suites: what is refused, how rows become runs, and what a key does and does not depend on."""

import copy
import dataclasses
import json

import pytest
import yaml

from benchmarks.composing import SUITES, deep_merge, find_suite
from benchmarks.dataset import data_root
from benchmarks.spec import REFERENCES, RunSpec
from benchmarks.suite import RESERVED_SETTINGS, load_suite, plan
from datamodules.errors import UserError

CONTENT = {
    "name": "small",
    "data": {"name": "set", "root": "${LANDSLIDE_DATA}/set", "settings": {"tile_size": 64}},
    "budget": {"max_steps": 10, "validate_every": 5},
    "seeds": [0, 1],
    "references": ["all_background", "slope_threshold"],
    "common": {"method": "deeplab", "hyperparameters": {"network": {"encoder": "tiny", "terrain": ["slope"]}}},
    "runs": [
        {"name": "image", "hyperparameters": {"network": {"inputs": "image"}}},
        {"name": "long", "budget": {"max_steps": 20}, "data": {"halo": 2}, "method": "other"},
    ],
}


@pytest.fixture
def write(tmp_path):
    def write(change=lambda content: None):
        content = copy.deepcopy(CONTENT)
        change(content)
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def test_rows_and_seeds_become_runs(write):
    specs = plan(load_suite(write()), fingerprint="f")
    assert [(spec.name, spec.seed) for spec in specs] == [
        ("all_background", None),
        ("slope_threshold", None),
        ("image", 0),
        ("image", 1),
        ("long", 0),
        ("long", 1),
    ]
    image, long = specs[2], specs[4]
    assert image.hyperparameters == {"network": {"encoder": "tiny", "terrain": ["slope"], "inputs": "image"}}
    assert (image.method, long.method) == ("deeplab", "other")
    assert (image.budget["max_steps"], long.budget["max_steps"]) == (10, 20)
    assert long.budget["validate_every"] == 5
    assert long.data_settings == {"tile_size": 64, "halo": 2}
    assert image.data_settings == {"tile_size": 64}
    assert all(spec.is_reference == (spec.name in REFERENCES) for spec in specs)


def test_seeds_of_the_command_line_replace_those_of_the_suite(write):
    assert [spec.seed for spec in plan(load_suite(write()), seeds=[7])] == [None, None, 7, 7]


def test_merge_goes_deep_replaces_lists_and_leaves_its_arguments_alone():
    base, update = {"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"c": [9]}, "d": {"e": 4}}
    before = copy.deepcopy((base, update))
    assert deep_merge(base, update) == {"a": {"b": 1, "c": [9]}, "d": {"e": 4}}
    assert (base, update) == before


# ---- keys ----------------------------------------------------------------------------------------------------------------------------

CHANGES_THE_SCORE = {
    "method": "other",
    "hyperparameters": {"network": {"encoder": "tiny"}},
    "data_settings": {"tile_size": 32},
    "data_fingerprint": "other",
    "budget": {"max_steps": 11},
    "seed": 5,
    "fold": 1,
    "split": {"folds": 3, "by": "region"},
    "protocol": 2,
}
MERE_NAMES = {"suite": "other", "name": "other", "data_name": "other", "published_set": "hpcl"}


@pytest.fixture
def spec(write):
    return plan(load_suite(write()), fingerprint="f")[2]


def test_every_field_of_a_spec_is_either_keyed_or_a_mere_name():
    fields = {item.name for item in dataclasses.fields(RunSpec)}
    assert fields == CHANGES_THE_SCORE.keys() | MERE_NAMES.keys()
    assert set(RunSpec.KEYED) == CHANGES_THE_SCORE.keys()


@pytest.mark.parametrize("field", CHANGES_THE_SCORE)
def test_what_can_change_a_score_changes_the_key(spec, field):
    assert dataclasses.replace(spec, **{field: CHANGES_THE_SCORE[field]}).key != spec.key


@pytest.mark.parametrize("field", MERE_NAMES)
def test_names_do_not_change_the_key(spec, field):
    assert dataclasses.replace(spec, **{field: MERE_NAMES[field]}).key == spec.key


@pytest.mark.parametrize("default", ["batch_size", "accumulate", "precision", "gradient_clip", "select"])
def test_a_default_that_is_spelled_out_is_the_same_run(write, spec, default):
    spelled = write(lambda content: content["budget"].update({default: spec.budget[default]}))
    assert plan(load_suite(spelled), fingerprint="f")[2].key == spec.key


def test_the_order_of_keys_and_the_place_of_the_data_do_not_matter(write, spec):
    def change(content):
        content["common"]["hyperparameters"]["network"] = {"terrain": ["slope"], "encoder": "tiny"}
        content["data"]["root"] = "/elsewhere"

    assert plan(load_suite(write(change)), fingerprint="f")[2].key == spec.key


def test_the_key_is_stable_over_versions():
    # A change of this number makes all committed results stale; raise PROTOCOL instead of changing how keys are made.
    golden = RunSpec("s", "n", "deeplab", {"network": {"inputs": "image"}}, "d", {"tile_size": 128}, {"max_steps": 4}, 0, "abc")
    assert golden.key == "002c60589364"
    assert RunSpec.from_dict(json.loads(json.dumps(golden.to_dict()))) == golden


def test_devices_workers_and_paths_cannot_reach_a_key():
    assert {"root", "num_workers", "batch_size"} <= RESERVED_SETTINGS.keys()


# ---- refusals ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.update(run=[]), ["run: unknown key", "did you mean runs?"]),
        (lambda c: c["budget"].update(max_step=3), ["budget.max_step: unknown key", "max_steps"]),
        (lambda c: c["runs"][0].update(metod="x"), ["runs[0].metod: unknown key", "method"]),
        (lambda c: c["runs"][1]["budget"].update(steps=1), ["runs[1].budget.steps: unknown key", "max_steps"]),
        (lambda c: c["data"].update(synthesise={}), ["data.synthesise: unknown key", "synthesize"]),
        (lambda c: c["data"].update(synthesize={"scene": 3}, root=None), ["data.synthesize.scene: unknown key", "scenes"]),
        (lambda c: c["data"].pop("root"), ["data", "root", "synthesize"]),
        (lambda c: c["data"]["settings"].update(num_workers=3), ["data.settings.num_workers", "--num-workers"]),
        (lambda c: c["runs"][0].update(data={"root": "x"}), ["runs[0].data.root", "data.root"]),
        (lambda c: c["budget"].update(max_steps="many"), ["budget.max_steps", "many"]),
        (lambda c: c["budget"].update(max_steps=11), ["max_steps = 11", "validate_every = 5"]),
        (lambda c: c["runs"][1]["budget"].update(max_steps=21), ["max_steps = 21", "validate_every = 5"]),
        (lambda c: c["budget"].update(validate_every=0), ["validate_every = 0", "at least 1"]),
        (lambda c: c["budget"].update(select="worst"), ["budget.select", "worst"]),
        (lambda c: c.update(seeds=3), ["seeds"]),
        (lambda c: c.update(seeds=[1, 1]), ["seeds = 1", "twice"]),
        (lambda c: c.update(seeds=[]), ["seeds", "at least one"]),
        (lambda c: c.update(references=["slope"]), ["references", "slope_threshold"]),
        (lambda c: c.pop("runs"), ["runs: is missing"]),
        (lambda c: c["runs"].append(c["runs"][0]), ["runs = 'image'", "twice"]),
        (lambda c: c["runs"].append({**c["runs"][0], "name": "twin"}), ["'image'", "'twin'", "same run"]),
        (lambda c: c["common"].pop("method"), ["runs[0].method", "no method"]),
        (lambda c: c.update(name="../up"), ["name = '../up'"]),
    ],
)
def test_mistakes_are_refused_with_field_and_remedy(write, change, told):
    path = write(change)
    with pytest.raises(UserError) as caught:
        plan(load_suite(path))
    assert caught.value.exit_code == 2
    for words in told:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_suites_are_refused(tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("- 1")
    for path, words in (
        (tmp_path / "broken.yaml", "YAML"),
        (tmp_path / "list.yaml", "mapping"),
        (tmp_path / "no.yaml", "no such suite file"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            load_suite(str(path))
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="did you mean mars"):
        find_suite("marz")


def test_the_data_folder_may_hang_on_a_variable(write, tmp_path, monkeypatch):
    suite = load_suite(write())
    monkeypatch.delenv("LANDSLIDE_DATA", raising=False)
    with pytest.raises(UserError, match="LANDSLIDE_DATA is not set; export LANDSLIDE_DATA=FOLDER, or give --data.root"):
        data_root(suite)
    monkeypatch.setenv("LANDSLIDE_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        data_root(suite)
    (tmp_path / "set").mkdir()
    assert data_root(suite) == tmp_path / "set"


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_suites_are_named_like_their_files_and_plan(path):
    suite = load_suite(path.stem)
    assert suite.name == path.stem
    assert len({spec.key for spec in plan(suite)}) == len(plan(suite)) == len(suite.references) + len(suite.runs) * len(suite.seeds)
