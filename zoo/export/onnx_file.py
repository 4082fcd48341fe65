"""Checkpoint -> one ONNX file: preprocessing and terrain inside, batch dynamic, compared with PyTorch before it gets its name."""

import json
import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from datamodules.errors import UserError
from zoo.export.deployed import Deployed, Description

TOLERANCE: Final = 1e-4
"""Largest difference of a probability from PyTorch's."""


@dataclass(frozen=True)
class OnnxReport:
    """What an export came to.

    Args:
        path: The file.
        largest_difference: Of a probability from PyTorch's, over the compared windows.
        file_bytes: Size of the file.
        weight_bytes: Size of the deployed parameters and buffers.
        deepness: Whether the QGIS plugin Deepness can run it.
    """

    path: Path
    largest_difference: float
    file_bytes: int
    weight_bytes: int
    deepness: bool


def export_onnx(ckpt: Path, out: Path, *, tile: int | None = None) -> OnnxReport:
    """Write the deployed network of a checkpoint as ONNX and compare it with PyTorch.

    The file takes raw layers of `tile` x `tile` pixels, any number at a time, and gives probabilities; its metadata say how they are to be
    read. A network of the image alone also carries what the QGIS plugin Deepness reads.

    Args:
        ckpt: The checkpoint.
        out: File to write.
        tile: Pixels of a window along each axis; None = the training window's.

    Raises:
        UserError: Packages are missing, the checkpoint cannot be read, or the file computes something else than PyTorch does.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} is not installed", "install it with `pip install landslide-zoo[onnx]`", field="out", value=str(out)
        )
    if tile is not None and tile < 1:
        raise UserError("is below 1", "give the pixels of a window", field="tile", value=tile, exit_code=2)
    network, description = Deployed.from_checkpoint(ckpt)
    size, pixel_m = tile or description.tile_size, (description.training_pixel_m or [1.0])[0]
    program = _trace(network, network.examples(2, size, pixel_m))
    model = program.model_proto
    properties = metadata(network, description, size)
    for name, value in properties.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    temporary = out.with_name(out.name + ".tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(model.SerializeToString())
        difference = max(_difference(network, temporary, network.examples(batch, size, pixel_m, seed=batch)) for batch in (1, 3))
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported file differs from PyTorch by {difference:.1e} in probability, more than {TOLERANCE:.0e}",
                "report it with the versions of torch, onnxscript and onnxruntime",
                file=ckpt,
            )
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))
    return OnnxReport(out, difference, out.stat().st_size, weights, "model_type" in properties)


def metadata(network: Deployed, description: Description, size: int) -> dict[str, str]:
    """What the file says of itself: keys of our own, and for a network of the image alone those of Deepness.

    Deepness divides by 255 and then subtracts `standardization_mean` and divides by `standardization_std`: 0 and 1 / 255 give the network
    the raw values that it takes.
    """
    pixel = description.training_pixel_m
    own: dict[str, Any] = {
        "landslide_zoo": {
            "method": description.method,
            "inputs": network.network.options.inputs,
            "threshold": description.threshold,
            "tile_size": size,
            "halo": network.halo,
            "training_pixel_m": pixel,
            "terrain": list(network.network.preprocessing.terrain),
        }
    }
    if network.names == ("image",):
        channels = network.network.options.image_channels
        own |= {
            "model_type": "Segmentor",
            "class_names": {"0": "background", "1": "landslide"},
            "tiles_size": size,
            "tiles_overlap": 25,
            "seg_thresh": description.threshold,
            "standardization_mean": [0.0] * channels,
            "standardization_std": [1 / 255] * channels,
        }
        if pixel:
            own["resolution"] = round(100 * pixel[0], 3)  # centimetres
    return {name: json.dumps(value) for name, value in own.items()}


def _trace(network: Deployed, layers: tuple[Tensor, ...]) -> torch.onnx.ONNXProgram:
    """The network as an ONNX program whose batch is dynamic."""
    # The exporter tells of each operator that has no translation for some type, and of names that it joins: nothing a user can act on.
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=65536)
    try:
        with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                layers,
                dynamo=True,
                verbose=False,
                input_names=list(network.names),
                output_names=["probability"],
                dynamic_shapes=(tuple({0: batch} for _ in layers),),
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    return program


def _difference(network: Deployed, path: Path, layers: tuple[Tensor, ...]) -> float:
    """Largest difference of a probability between the file, run by onnxruntime on the CPU, and PyTorch."""
    import onnxruntime  # noqa: PLC0415 - an extra, imported where it is used

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = dict(zip(network.names, layers, strict=True))
    (found,) = session.run(None, {entry.name: given[entry.name].numpy() for entry in session.get_inputs()})
    with torch.no_grad():
        expected = network(*layers)
    return float((torch.from_numpy(found) - expected).abs().max())
