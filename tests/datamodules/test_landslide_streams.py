"""Which windows come, and in what order: by seed and epoch alone, however many workers there are."""

import pickle

import lightning as L
import pytest
import torch

from datamodules.windows import stack
from tests.datamodules.landslide_scenes import data_of, equal, stream


@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_does_not_depend_on_workers(root, workers):
    assert equal(stream(data_of(root)), stream(data_of(root, num_workers=workers)))


def test_the_stream_depends_on_seed_and_epoch_alone(root):
    first = stream(data_of(root))
    assert equal(first, stream(data_of(root)))
    assert equal(first, stream(data_of(root, cache_mb=0)))
    assert not equal(first, stream(data_of(root, seed=4)))
    assert not equal(first, stream(data_of(root), epoch=1))


def test_seed_everything_governs_without_a_seed(root):
    streams = []
    for seed in (1, 1, 2):
        L.seed_everything(seed, verbose=False)
        streams.append(stream(data_of(root, seed=None)))
    assert equal(streams[0], streams[1])
    assert not equal(streams[0], streams[2])


def test_training_windows_lie_at_many_offsets_within_the_scene(root):
    data = data_of(root, geometry=False, colour=False, samples_per_epoch=64)
    places = {tuple(map(int, tile.split(":")[1:])) for batch in stream(data) for tile in batch["tile"]}
    assert len(places) > 30
    assert all(0 <= row <= 70 - 32 and 0 <= column <= 90 - 32 for row, column in places)


def test_landslide_share_reaches_the_masks(root):
    data = data_of(root, geometry=False, colour=False, train_stride=32, samples_per_epoch=64, landslide_share=0.5)
    data.setup("fit")
    loader = data.train_dataloader()
    landslide = data._windows["train"].landslide >= 0.005
    windows, _ = loader.sampler.order(0)
    assert landslide[windows].mean() == 0.5


def test_readers_survive_pickling(root):
    data = data_of(root)
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    again = pickle.loads(pickle.dumps(dataset))
    assert equal([stack([again[0, 5]])], [stack([dataset[0, 5]])])


class Recorder(L.LightningModule):
    """Writes down which windows come."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.tiles = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch, _):
        self.tiles["train"].append((self.current_epoch, tuple(batch["tile"]), float(batch["image"].nan_to_num().sum())))
        return self.weight * 0

    def validation_step(self, batch, _):
        self.tiles["val"] += batch["tile"]

    def test_step(self, batch, batch_idx):
        self.tiles["test"] += batch["tile"]

    def predict_step(self, batch, _):
        self.tiles["predict"] += batch["tile"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(root, **trainer_options):
    module, data = Recorder(), data_of(root)
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    trainer = L.Trainer(**silent, use_distributed_sampler=False, **trainer_options)
    trainer.fit(module, datamodule=data, **({"ckpt_path": trainer_options.get("ckpt")} if "ckpt" in trainer_options else {}))
    return trainer, module, data


def test_lightning_gives_each_epoch_its_own_order_and_every_evaluation_window(root):
    trainer, module, data = trained(root, max_epochs=2, enable_checkpointing=False)
    epochs = [[entry[1:] for entry in module.tiles["train"] if entry[0] == epoch] for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    for epoch in (0, 1):
        assert [entry[0] for entry in epochs[epoch]] == [tuple(batch["tile"]) for batch in stream(data_of(root), epoch)]
    trainer.test(module, datamodule=data, verbose=False)
    trainer.predict(module, datamodule=data)
    every = [f"s3:{row}:{column}" for row in (0, 32, 38) for column in (0, 32, 58)]
    assert module.tiles["test"] == every
    assert module.tiles["predict"] == every
