"""Model folders: back to the same probabilities, a card that says what is known and what is not, nothing written over."""

import json

import pytest
import torch

from datamodules.errors import UserError
from zoo import create_method, load_checkpoint
from zoo.cli import main
from zoo.export import PublishedModel, export_bundle

NETWORK = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "inputs": "both", "fusion": "concat_ca", "fusion_levels": "deep"}


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    module = create_method("hpcl_net", network=NETWORK).eval()
    module.decision_threshold.fill_(0.375)
    described = {"method": "zoo.hpcl_net.HPCLNet", "hyperparameters": module.hyperparameters()}
    described |= {"data": {"tile_size": 64, "halo": 1}, "training_pixel_m": [2.0, 5.0]}
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": module.state_dict(), "landslide_zoo": described}, path)
    return path


def test_two_lines_give_the_same_probabilities_back(checkpoint, tmp_path):
    report = export_bundle(checkpoint, tmp_path / "out" / "model.safetensors")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(report.files)
    module = load_checkpoint(checkpoint)
    model = PublishedModel.from_pretrained(tmp_path / "out")
    assert model.threshold == 0.375
    assert not model.training
    image, pixel_size = torch.rand(2, 3, 64, 64) * 255, torch.full((2, 2), 2.0)
    dem = torch.rand(2, 1, 66, 66) * 100
    dem[0, :, 5:9] = torch.nan
    with torch.no_grad():
        assert torch.equal(model(image, dem, pixel_size), torch.sigmoid(module.network(image, dem, pixel_size)))
    names = set(model.state_dict())
    assert not [name for name in names if "teacher" in name or "queue" in name], "the parts of training stay behind"
    assert report.parameters == sum(parameter.numel() for parameter in module.network.parameters())


def test_the_card_says_what_is_known_and_what_is_not(checkpoint, tmp_path):
    record = {
        "key": "0123456789ab",
        "status": "finished",
        "spec": {"seed": 3, "data_name": "somewhere"},
        "metrics": {"val": {"iou_landslide": 0.5}, "test": {"iou_landslide": 0.4567, "precision": None}},
        "data": {"splits": {"test": {"km2": 12.5}}},
        "environment": {"git": {"commit": "abc1234"}},
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    arguments = [
        "--record",
        str(tmp_path / "record.json"),
        "--region",
        "a valley | a hill",
        "--licence",
        "cc-by-4.0",
        "--bbox",
        "[10,45,11,46]",
    ]
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "out" / "model.safetensors"), *arguments]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (
        "| 0.500 | 0.457 |",
        "| precision | – | – |",
        "0.3750, chosen on validation",
        "2 to 5 m",
        "record 0123456789ab",
        "seed 3",
    ):
        assert words in card
    assert "| region | a valley \\| a hill |" in card
    assert "| elevation source | not stated |" in card
    assert "Not stated: check a map" in card
    assert card.startswith("---\nlibrary_name")
    item = json.loads((tmp_path / "out" / "stac.json").read_text())
    assert item["bbox"] == [10, 45, 11, 46]
    assert item["geometry"]["coordinates"][0][2] == [11, 46]
    assert [part["name"] for part in item["properties"]["mlm:input"]] == ["image", "dem", "pixel_size"]
    assert item["properties"]["mlm:input"][1]["input"]["shape"] == [-1, 1, 66, 66]


def test_an_export_is_written_over_and_anything_else_is_not(checkpoint, tmp_path):
    out = tmp_path / "out" / "model.safetensors"
    export_bundle(checkpoint, out)
    export_bundle(checkpoint, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my notes")
    with pytest.raises(UserError, match=r"README.md is there already"):
        export_bundle(checkpoint, tmp_path / "mine" / "model.safetensors")
    assert (tmp_path / "mine" / "README.md").read_text() == "my notes"
    (tmp_path / "out" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="not the configuration of an exported model"):
        PublishedModel.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "weights.bin"], "a model is a folder with fixed names"),
        (["--out", "x/model.safetensors", "--bbox", "[10,45,9,46]"], "is no bounding box"),
        (["--out", "x/model.safetensors", "--record", "nowhere.json"], "cannot be read"),
    ],
)
def test_bad_usage_is_one_line(checkpoint, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        main(["export", str(checkpoint), *arguments])
    assert not (tmp_path / "x").exists()
