"""Modality dropout: one network that works with and without an elevation model or an image."""

import lightning as L
import pytest
import torch

from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from zoo import METHODS, create_method
from zoo.preprocessing import Preprocessing

TINY = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "inputs": "both"}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False, "num_sanity_val_steps": 0, "enable_checkpointing": False}  # fmt: skip
NAN = float("nan")

every_method = pytest.mark.parametrize("method", METHODS)


def make_batch(size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size, 64, 64, dtype=torch.uint8)
    mask[:, 16:32, 16:32] = 1
    return {
        "image": torch.rand(size, 3, 64, 64, generator=generator) * 255,
        "dem": 1000 + 20 * torch.randn(size, 1, 68, 68, generator=generator),
        "mask": mask,
        "pixel_size": torch.full((size, 2), 2.0),
        "tile": [f"scene:{index}:0" for index in range(size)],
    }


def run(preprocessing, image, dem):
    torch.manual_seed(3)
    return preprocessing(image, dem, torch.full((len(image), 2), 2.0))


def test_shares_are_met_and_never_both_are_hidden():
    preprocessing = Preprocessing("both", 3, ["slope"], dem_dropout=0.3, image_dropout=0.2).train()
    image, dem = torch.rand(4000, 3, 4, 4) + 1, torch.randn(4000, 1, 6, 6)
    shown, terrain = run(preprocessing, image, dem)
    no_image, no_dem = (values.flatten(1).abs().amax(1) == 0 for values in (shown, terrain))
    assert not (no_image & no_dem).any()
    # Four standard deviations of a binomial count.
    assert abs(no_dem.float().mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5
    assert abs(no_image.float().mean() - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_a_sample_without_the_other_modality_keeps_the_one_it_has():
    image, dem = torch.rand(64, 3, 8, 8) + 1, torch.randn(64, 1, 10, 10)
    shown, _ = run(Preprocessing("both", 3, ["slope"], image_dropout=1.0).train(), image, torch.full_like(dem, NAN))
    assert torch.equal(shown, image)
    _, terrain = run(Preprocessing("both", 3, ["slope"], dem_dropout=1.0).train(), torch.full_like(image, NAN), dem)
    assert (terrain.flatten(1).abs().amax(1) > 0).all()


def test_hidden_is_to_the_bit_what_missing_data_give():
    image, dem = torch.rand(4, 3, 16, 16) * 200, 500 + torch.randn(4, 1, 20, 20)
    for dropout, missing in (("dem_dropout", (image, torch.full_like(dem, NAN))), ("image_dropout", (torch.full_like(image, NAN), dem))):
        hiding = Preprocessing("both", 3, ["elevation", "slope"], **{dropout: 1.0}).train()
        hiding.image_mean.fill_(90.0)
        expected = run(hiding.eval(), *missing)
        for found, wanted in zip(run(hiding.train(), image, dem), expected, strict=True):
            assert torch.equal(found, wanted)


@every_method
@pytest.mark.parametrize("modality", ["dem", "image"])
def test_training_does_not_depend_on_what_is_hidden(method, modality):
    torch.manual_seed(0)
    module = create_method(method, network={**TINY, f"{modality}_dropout": 1.0}).train()
    states, batch, other = module.state_dict(), make_batch(), make_batch(seed=1)
    totals = []
    for values in (batch[modality], other[modality]):
        module.load_state_dict({name: value.clone() for name, value in states.items()})
        torch.manual_seed(5)
        totals.append(module.objective({**batch, modality: values})["total"].detach())
    assert torch.equal(*totals)


@every_method
def test_without_dropout_nothing_is_drawn_and_nothing_changes(method):
    batch, outcomes = make_batch(), []
    for network in (TINY, {**TINY, "dem_dropout": 0.0, "image_dropout": 0.0}):
        torch.manual_seed(0)
        module = create_method(method, network=network).train()
        module.network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
        outcomes.append((torch.get_rng_state(), module.objective(batch)["total"].detach()))
    torch.manual_seed(0)
    create_method(method, network=TINY)
    assert torch.equal(outcomes[0][0], torch.get_rng_state())  # preprocessing left the stream alone
    assert all(torch.equal(*pair) for pair in zip(*outcomes, strict=True))


def test_evaluation_hides_nothing():
    module = create_method("deeplab", network={**TINY, "dem_dropout": 0.5, "image_dropout": 0.5}).eval()
    batch = make_batch()
    first, second = (module.probabilities(batch) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, module.probabilities({**batch, "dem": torch.full_like(batch["dem"], NAN)}))


@pytest.mark.parametrize(
    "options",
    [
        {"dem_dropout": -0.1},
        {"dem_dropout": 0.6, "image_dropout": 0.6},
        {"dem_dropout": 0.2, "inputs": "dem"},
        {"image_dropout": 0.2, "inputs": "image"},
    ],
)
def test_shares_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match=r"network\.(dem|image)_dropout"):
        create_method("deeplab", network={**TINY, **options})


# ---- against data ------------------------------------------------------------------------------------------------------------------------


def validate(folder, drop=None, **network):
    torch.manual_seed(0)
    module = create_method("deeplab", network={**TINY, **network})
    data = LandslideDataModule(str(folder), tile_size=64, batch_size=2, seed=0, drop=drop)
    L.Trainer(**QUIET).validate(module, datamodule=data, verbose=False)
    return sum(module.val_histograms.values())


def test_a_network_is_scored_without_what_it_was_trained_to_miss(data_folder):
    both = validate(data_folder, dem_dropout=0.5, image_dropout=0.2)
    for drop in ("dem", "image"):
        without = validate(data_folder, drop, dem_dropout=0.5, image_dropout=0.2)
        assert torch.equal(without.sum(1), both.sum(1))  # the same labels count
        assert not torch.equal(without, both)


def test_data_without_elevation_are_what_dropping_it_makes_of_others(data_folder, folder_without_dem):
    assert torch.equal(validate(data_folder, "dem", dem_dropout=0.5), validate(folder_without_dem, dem_dropout=0.5))


@pytest.mark.parametrize(
    ("drop", "network", "message"),
    [
        ("dem", {}, r"network\.dem_dropout"),
        ("dem", {"image_dropout": 0.5}, r"network\.dem_dropout"),
        ("dem", {"inputs": "dem"}, r"network\.inputs"),
        ("image", {}, r"network\.image_dropout"),
        ("image", {"inputs": "image"}, r"data\.drop"),
    ],
)
def test_other_networks_refuse_and_name_the_option(data_folder, drop, network, message):
    with pytest.raises(UserError, match=message):
        validate(data_folder, drop, **network)


def test_training_with_dropout_needs_some_elevation(folder_without_dem):
    module = create_method("deeplab", network={**TINY, "dem_dropout": 0.5})
    data = LandslideDataModule(str(folder_without_dem), tile_size=64, batch_size=2, seed=0)
    with pytest.raises(UserError, match="no elevation model"):
        L.Trainer(max_steps=1, **QUIET).fit(module, datamodule=data)
