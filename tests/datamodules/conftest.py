"""Fixtures of the data modules' tests."""

import pytest

from tests.datamodules.landslide_scenes import make_scene, manifest


@pytest.fixture
def root(tmp_path):
    rows = [[*make_scene(tmp_path, f"s{k}", seed=k), split, "r"] for k, split in enumerate(("train", "train", "val", "test"))]
    manifest(tmp_path, rows)
    return tmp_path
