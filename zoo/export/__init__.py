"""From a checkpoint to files that other programs run: ONNX, or safetensors with a model card. What only training needs stays behind."""

from zoo.export.bundle import PublishedModel, export_bundle
from zoo.export.deployed import Deployed
from zoo.export.onnx_file import export_onnx

__all__ = ["Deployed", "PublishedModel", "export_bundle", "export_onnx"]
