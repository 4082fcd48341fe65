"""ONNX files against PyTorch: the same probabilities for any batch, with holes, for every method and input."""

import json

import numpy as np
import pytest
import torch

from datamodules.errors import UserError
from zoo import create_method
from zoo.cli import main
from zoo.export import Deployed
from zoo.export.onnx_file import TOLERANCE, export_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def checkpoint(tmp_path):
    """Save a method with random weights and statistics as a checkpoint."""

    def checkpoint(method="deeplab", inputs="both", **hyperparameters):
        torch.manual_seed(0)
        fusion = {"fusion": "concat_ca", "fusion_levels": "deep"} if (method, inputs) == ("hpcl_net", "both") else {}
        network = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "inputs": inputs, "terrain": ["elevation", "slope"], **fusion}
        module = create_method(method, network={**network, **hyperparameters}).eval()
        statistics = module.network.preprocessing
        statistics.image_mean.uniform_(80, 120)
        statistics.image_std.uniform_(20, 40)
        for norm in (part for part in module.network.modules() if isinstance(part, torch.nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
        # A head as it is initialised says 0.53 everywhere, whatever the network before it: steep, and centred on this input.
        head = module.network.head
        with torch.no_grad():
            head.weight.mul_(30)
            head.bias -= module.network(torch.rand(4, 3, 64, 64) * 255, 500 + 30 * torch.rand(4, 1, 68, 68), torch.full((4, 2), 6.0)).mean()
        described = {"method": f"{type(module).__module__}.{type(module).__qualname__}", "hyperparameters": module.hyperparameters()}
        described |= {"data": {"tile_size": 64, "halo": 2}, "training_pixel_m": [2.5, 2.5]}
        path = tmp_path / "model.ckpt"
        torch.save({"state_dict": module.state_dict(), "landslide_zoo": described}, path)
        return path

    return checkpoint


def run(path, layers):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in layers.items()})[0]


def layers_of(names, batch, size=64, halo=2):
    generator = torch.Generator().manual_seed(batch)
    layers = {
        "image": torch.rand(batch, 3, size, size, generator=generator) * 255,
        "dem": 500 + 30 * torch.rand(batch, 1, size + 2 * halo, size + 2 * halo, generator=generator),
        "pixel_size": torch.rand(batch, 2, generator=generator) * 10 + 1,
    }
    layers["image"][-1, :, 10:20, :5] = torch.nan
    layers["dem"][-1, :, :9, 30:40] = torch.nan
    return {name: layers[name] for name in names}


def check(path, out, report):
    assert report.largest_difference <= TOLERANCE
    assert out.stat().st_size == report.file_bytes
    network, _ = Deployed.from_checkpoint(path)
    for batch in (1, 4):
        layers = layers_of(network.names, batch)
        with torch.no_grad():
            expected = network(*layers.values()).numpy()
        found = run(out, layers)
        assert found.shape == (batch, 1, 64, 64)
        assert np.abs(found - expected).max() <= 1e-4
        assert expected.std() > 0.01, "the weights must make a difference"


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["image", "dem", "both"])
@pytest.mark.parametrize("method", ["deeplab", "hpcl_net", "icssn", "mrife"])
def test_the_file_gives_the_probabilities_of_pytorch(checkpoint, tmp_path, method, inputs):
    path, out = checkpoint(method, inputs), tmp_path / "out" / "model.onnx"
    check(path, out, export_onnx(path, out))


@pytest.mark.slow
def test_the_file_of_hpcl_net_is_as_large_as_what_is_deployed(checkpoint, tmp_path):
    """Teacher, queues and projection heads stay behind; what is left beside the weights is the graph."""
    path, out = checkpoint("hpcl_net", "both", encoder="tu-tf_efficientnet_lite0", decoder_channels=256), tmp_path / "model.onnx"
    report = export_onnx(path, out)
    network, _ = Deployed.from_checkpoint(path)
    deployed = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert report.weight_bytes >= deployed
    assert out.stat().st_size <= 1.02 * deployed
    assert path.stat().st_size > 1.2 * deployed, "the checkpoint holds the parts of training too"


def test_the_command_writes_one_file_that_says_how_to_read_it(checkpoint, tmp_path, capsys):
    path, out = checkpoint(inputs="image"), tmp_path / "model.onnx"
    assert main(["export", str(path), "--out", str(out), "--tile", "32"]) == 0
    assert "largest difference from PyTorch" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.tmp"))
    properties = {entry.key: json.loads(entry.value) for entry in onnx.load(out).metadata_props if entry.key in ("landslide_zoo", "model_type", "standardization_std", "tiles_size", "resolution")}  # fmt: skip
    assert properties["landslide_zoo"]["inputs"] == "image"
    assert properties["landslide_zoo"]["training_pixel_m"] == [2.5, 2.5]
    assert properties["model_type"] == "Segmentor"
    assert properties["tiles_size"] == 32
    assert properties["resolution"] == 250
    # What Deepness makes of raw values reaches the network as raw values again.
    raw = np.float32(200)
    assert (raw / 255 - 0) / properties["standardization_std"][0] == pytest.approx(raw)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    assert session.get_inputs()[0].shape[1:] == [3, 32, 32]
    assert session.get_outputs()[0].shape[2:] == [32, 32]


def test_a_file_that_differs_is_not_kept(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.export.onnx_file._difference", lambda *_: 0.5)
    with pytest.raises(UserError, match="differs from PyTorch by 5.0e-01"):
        export_onnx(checkpoint(inputs="image"), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        export_onnx(tmp_path / "x.ckpt", tmp_path / "x.onnx")
