"""The command line as a user types it, in this process where that says enough and in one of its own where exit codes count."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from datamodules.errors import UserError
from zoo import METHODS, check_method, load_checkpoint
from zoo.cli import main

TINY = [
    "--model.network.encoder=tu-test_efficientnet",
    "--model.network.weights=null",
    "--model.network.decoder_channels=16",
    "--data.tile_size=64",
    "--data.batch_size=2",
    "--data.num_workers=0",
    "--trainer.max_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
CONFIGS = sorted((Path(__file__).parents[2] / "zoo" / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def trained(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    assert main(["fit", "--config", str(CONFIGS[0].parent / "deeplab.yaml"), "--data.root", str(data_folder), f"--trainer.logger.init_args.save_dir={folder}", *TINY]) == 0  # fmt: skip
    (checkpoint,) = folder.rglob("best.ckpt")
    return checkpoint


def test_fit_then_test_with_the_checkpoint_alone(trained, data_folder, tmp_path, capsys):
    out = tmp_path / "scores.json"
    assert main(["test", "--ckpt", str(trained), "--data.root", str(data_folder), "--accelerator=cpu", "--out", str(out)]) == 0
    scores = json.loads(out.read_text())
    assert 0 <= scores["recall"] <= 1
    assert scores["threshold"] == load_checkpoint(trained).threshold
    assert scores["pixels"] == 2 * 64 * 64  # each test pixel once
    assert "iou_landslide" in capsys.readouterr().out
    assert main(["validate", "--ckpt", str(trained), "--data.root", str(data_folder), "--accelerator=cpu"]) == 0


def test_the_saved_configuration_runs_again_to_the_same_weights(trained, data_folder, tmp_path):
    (config,) = trained.parents[1].glob("config.yaml")
    assert main(["fit", "--config", str(config), f"--trainer.logger.init_args.save_dir={tmp_path}"]) == 0
    (again,) = tmp_path.rglob("best.ckpt")
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (trained, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_parses(config):
    model = yaml.safe_load(config.read_text())["model"]
    assert model["class_path"].rpartition(".")[2] in {method.__name__ for method in METHODS.values()}
    check_method(model["class_path"], model["init_args"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fitt"], "no such command"),
        (["fit", "--config", "missing.yaml"], "missing.yaml"),
        (["fit", "--config", "CONFIG", "--data.root", "DATA", "--model.network.encodr=x"], "encodr"),
        (["fit", "--config", "CONFIG", "--data.root", "DATA", "--model.network.encoder=resnet19"], "resnet18"),
        (["fit", "--config", "CONFIG", "--data.root", "nowhere"], "nowhere"),
        (["fit", "--config", "CONFIG", "--data.root", "DATA", "--model=DeepLap"], "DeepLap"),
        (["test", "--ckpt", "missing.ckpt", "--data.root", "DATA"], "missing.ckpt"),
        (["test", "--ckpt", "CONFIG", "--data.root", "DATA"], "cannot be read as a checkpoint"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, data_folder):
    filled = [
        {"CONFIG": str(CONFIGS[0].parent / "deeplab.yaml"), "DATA": str(data_folder)}.get(argument, argument) for argument in arguments
    ]
    with pytest.raises(UserError) as caught:
        main(
            filled + (TINY if filled[0] == "fit" and "CONFIG" in arguments and len(arguments) > 3 and "encod" not in arguments[-1] else [])
        )
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_without_elevation_are_refused_by_a_network_that_needs_it_and_not_by_one_that_does_not(folder_without_dem, tmp_path):
    arguments = ["fit", "--config", str(CONFIGS[0].parent / "deeplab.yaml"), "--data.root", str(folder_without_dem), f"--trainer.logger.init_args.save_dir={tmp_path}", *TINY]  # fmt: skip
    with pytest.raises(UserError, match=r"network.inputs.*set it to image"):
        main(arguments)
    assert main([*arguments, "--model.network.inputs=image"]) == 0


@pytest.mark.slow
def test_the_process_ends_with_one_line_and_the_right_code(data_folder):
    for arguments, code in ((["methods"], 0), (["fit", "--config", "nowhere.yaml"], 2), (["test", "--ckpt", "missing.ckpt"], 2), ([], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "zoo", *arguments], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        if code and arguments:
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            assert done.stderr.startswith("error: ")
