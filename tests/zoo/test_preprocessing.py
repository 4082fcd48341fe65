"""Preprocessing: standardised, without NaN, relative elevation, true under flips."""

import pytest
import torch

from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from zoo.preprocessing import Preprocessing, fill_from_neighbours


def test_training_windows_come_out_with_mean_0_and_deviation_1(data_folder):
    data = LandslideDataModule(root=str(data_folder), tile_size=64, batch_size=4, seed=0)
    data.setup("fit")
    preprocessing = Preprocessing("both", 3, ("elevation", "slope", "aspect_sin"))
    preprocessing.set_statistics(data.statistics, data.training_sample())
    image, terrain = preprocessing(*((batch := next(iter(data.training_sample())))[key] for key in ("image", "dem", "pixel_size")))
    assert batch["image"].shape[0] == 4  # the whole training split
    assert image.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert image.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    inner = terrain[..., 1:-1, 1:-1]  # these one-window scenes have a rim without derivatives
    assert inner.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=2e-2)
    assert inner.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=5e-2)


def test_absolute_height_does_not_reach_the_network():
    preprocessing = Preprocessing("dem", 0, ("elevation", "slope"))
    dem = torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)).double()
    arguments = torch.zeros(2, 3, 16, 16), torch.full((2, 2), 2.0)
    low, high = (preprocessing(arguments[0], dem + height, arguments[1])[1] for height in (0, 4096))
    torch.testing.assert_close(low, high)


def test_missing_data_become_the_mean_and_the_rim_its_neighbours():
    preprocessing = Preprocessing("both", 3, ("slope",))
    columns = torch.arange(20.0).expand(1, 1, 20, 20)
    dem = columns * 2.0  # 45 degrees at 2 m
    dem[..., :8, :8] = float("nan")
    image = torch.full((1, 3, 20, 20), float("nan"))
    image, terrain = preprocessing(image, dem, torch.full((1, 2), 2.0))
    assert (image == 0).all()
    expected = (45 - 45) / 45  # until measured, slope is scaled from 0..90 degrees to -1..1
    known = terrain[0, 0, 10:, :]
    torch.testing.assert_close(known, torch.full_like(known, expected), atol=1e-5, rtol=0)
    assert torch.isfinite(terrain).all()


def test_fill_takes_the_mean_of_known_neighbours_step_by_step():
    layers = torch.full((1, 1, 1, 5), float("nan"))
    layers[..., 0] = 2.0
    assert fill_from_neighbours(layers, 2)[0, 0, 0].tolist() == [2, 2, 2, 0, 0]


def test_an_elevation_input_without_layers_and_an_unknown_layer_are_refused():
    with pytest.raises(UserError, match="set inputs to image"):
        Preprocessing("both", 3, ())
    with pytest.raises(UserError, match="did you mean slope"):
        Preprocessing("dem", 3, ("slop",))
