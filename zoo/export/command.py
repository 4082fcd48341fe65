"""`zoo export`: a checkpoint as ONNX or as a model folder."""

from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import UserError
from zoo.export.bundle import export_bundle
from zoo.export.card import Statements
from zoo.export.onnx_file import export_onnx
from zoo.registry import Parser


def export(arguments: Sequence[str]) -> int:
    """Write a checkpoint in another form; the suffix of `--out` says which.

    Args:
        arguments: The options.
    """
    parser = Parser(prog="zoo export", description="The deployed network of a checkpoint for other programs.")
    parser.add_argument("ckpt", type=Path, help="checkpoint that `zoo fit` or `zoo-bench run` wrote")
    parser.add_argument("--out", type=Path, required=True, help="NAME.onnx, or FOLDER/model.safetensors with configuration and model card")
    parser.add_argument("--tile", type=int | None, default=None, help="ONNX: pixels of a window; default the training window's")
    parser.add_argument("--record", type=Path | None, default=None, help="card: record of a benchmark run, for its scores")
    parser.add_argument("--name", type=str, default=Statements.name, help="card: name of the model")
    parser.add_argument("--training-data", type=str, default="", help="card: what it was trained on; default the record's")
    parser.add_argument("--region", type=str, default="", help="card: where it was trained")
    parser.add_argument("--dem-source", type=str, default="", help="card: elevation model and its resolution")
    parser.add_argument("--licence", type=str, default="", help="card: of the weights")
    parser.add_argument("--known-failures", type=str, default="", help="card: landforms it is known to fail on")
    parser.add_argument("--bbox", type=list[float], default=[], help="STAC: [west, south, east, north] in degrees")
    options = parser.parse_args(list(arguments))
    if options.out.suffix == ".onnx":
        report = export_onnx(options.ckpt, options.out, tile=options.tile)
        print(f"wrote {report.path}, {report.file_bytes / 1e6:.1f} MB for {report.weight_bytes / 1e6:.1f} MB of weights")
        print(f"largest difference from PyTorch in probability: {report.largest_difference:.1e}")
        print(
            "runs in the QGIS plugin Deepness" if report.deepness else "takes more than an image, so the QGIS plugin Deepness cannot run it"
        )
        return 0
    if options.bbox and not (
        len(options.bbox) == 4 and -180 <= options.bbox[0] <= options.bbox[2] <= 180 and -90 <= options.bbox[1] <= options.bbox[3] <= 90
    ):
        raise UserError("is no bounding box", "give [west, south, east, north] in degrees", field="bbox", value=options.bbox, exit_code=2)
    statements = Statements(
        name=options.name,
        data=options.training_data,
        region=options.region,
        dem_source=options.dem_source,
        licence=options.licence,
        known_failures=options.known_failures,
        bbox=options.bbox,
    )
    if options.record is not None:
        statements = statements.with_record(options.record)
    written = export_bundle(options.ckpt, options.out, statements)
    print(f"wrote {', '.join(written.files)} to {written.folder} ({written.parameters:,} parameters)")
    return 0
