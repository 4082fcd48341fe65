"""STAC item of a model by the Machine Learning Model extension (MLM) 1.5."""

from typing import TYPE_CHECKING, Any, Final

from zoo.export.card import Statements, plain

if TYPE_CHECKING:
    from zoo.export.deployed import Deployed, Description

MLM: Final = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
_CHANNELS: Final = ["batch", "channel", "height", "width"]


def stac_item(network: "Deployed", description: "Description", statements: Statements, parameters: int) -> dict[str, Any]:
    """The item. Its geometry is null where no bounding box is stated, and its time is unknown, hence all of it.

    Args:
        network: The deployed network.
        description: What the checkpoint says of itself.
        statements: What the author says.
        parameters: Of the deployed network.
    """
    options, size = network.network.options, description.tile_size
    wide = size + 2 * description.halo
    shapes = {
        "image": ([-1, options.image_channels, size, size], _CHANNELS, "raw values as in the file; NaN is no data"),
        "dem": ([-1, 1, wide, wide], _CHANNELS, f"elevation in metres with a halo of {description.halo} pixels; NaN is no data"),
        "pixel_size": ([-1, 2], ["batch", "axis"], "metres (x, y)"),
    }
    inputs = [
        {
            "name": name,
            "description": shapes[name][2],
            "bands": [],
            "input": {"shape": shapes[name][0], "dim_order": shapes[name][1], "data_type": "float32"},
        }
        for name in network.names
    ]
    classes = [
        {"value": 0, "name": "background", "description": "no landslide"},
        {"value": 1, "name": "landslide", "description": "landslide"},
    ]
    output = {
        "name": "probability",
        "tasks": ["semantic-segmentation"],
        "result": {"shape": [-1, 1, size, size], "dim_order": _CHANNELS, "data_type": "float32"},
        "classification:classes": classes,
        "description": f"probability of landslide; landslide from {description.threshold:.4f} on",
    }
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [MLM],
        "id": "".join(letter if letter.isalnum() else "-" for letter in statements.name.lower()).strip("-") or "model",
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": "1900-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            **plain({"description": statements.region and f"Trained in {statements.region}.", "license": statements.licence}),
            "mlm:name": statements.name,
            "mlm:architecture": f"{description.method.rpartition('.')[2]} ({options.encoder}, {options.decoder})",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "pytorch",
            "mlm:total_parameters": parameters,
            "mlm:pretrained": options.weights is not None,
            "mlm:input": inputs,
            "mlm:output": [output],
        },
        "assets": {
            "model": {
                "href": "./model.safetensors",
                "type": "application/octet-stream; framework=pytorch",
                "title": "weights of the deployed network",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors",
            },
            "card": {"href": "./README.md", "type": "text/markdown", "title": "model card", "roles": ["metadata"]},
        },
        "links": [],
    }
    if statements.bbox:
        west, south, east, north = statements.bbox
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        item["bbox"] = [west, south, east, north]
        item["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    return item
