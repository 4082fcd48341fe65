"""Model card: what a user must know before mapping with a model. What nobody stated is said to be not stated."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from datamodules.errors import UserError

if TYPE_CHECKING:
    from zoo.export.deployed import Deployed, Description

NOT_STATED: Final = "not stated"
_SCORES: Final = {
    "IoU": "iou_landslide",
    "F1": "f1",
    "precision": "precision",
    "recall": "recall",
    "average precision": "ap",
    "prevalence": "prevalence",
}


@dataclass(frozen=True)
class Statements:
    """What an author says of a model beyond what its checkpoint knows.

    Args:
        name: Of the model.
        data: Name of the training data.
        region: Where they lie.
        dem_source: Of the elevation models, with their resolution.
        licence: Of the weights.
        known_failures: Landforms and conditions in which the model is known to fail.
        bbox: West, south, east, north of the region in degrees (WGS 84); empty = not stated.
        scores: Split -> score -> value, from a benchmark record.
        splits: Split -> scenes, windows, km2, prevalence, ..., from a benchmark record.
        provenance: Key, seed and commit of that record.
    """

    name: str = "landslide model"
    data: str = ""
    region: str = ""
    dem_source: str = ""
    licence: str = ""
    known_failures: str = ""
    bbox: tuple[float, ...] | list[float] = ()
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def with_record(self, path: Path) -> Self:
        """The same statements with the scores and data of a benchmark record.

        Args:
            path: `RESULTS/records/KEY.json` of a finished run.

        Raises:
            UserError: The file is no record of a finished run.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"cannot be read ({error})", "give RESULTS/records/KEY.json", file=path, field="record", exit_code=2) from error
        if not isinstance(record, dict) or record.get("status") != "finished" or not {"key", "spec", "metrics", "data"} <= record.keys():
            raise UserError("is no record of a finished run", "give RESULTS/records/KEY.json of one", file=path, field="record")
        provenance = {
            "record": record["key"],
            "seed": record["spec"].get("seed"),
            "commit": record.get("environment", {}).get("git", {}).get("commit"),
        }
        data = self.data or str(record["spec"].get("data_name", ""))
        changed = {"scores": record["metrics"], "splits": record["data"].get("splits", {}), "provenance": provenance, "data": data}
        return type(self)(**{**self.__dict__, **changed})


def model_card(network: "Deployed", description: "Description", statements: Statements, parameters: int) -> str:
    """The card as Markdown, with the front matter that model hubs read.

    Args:
        network: The deployed network.
        description: What the checkpoint says of itself.
        statements: What the author says.
        parameters: Of the deployed network.
    """
    options = network.network.options
    pixel = description.training_pixel_m
    front = ["---", "library_name: landslide-zoo", "pipeline_tag: image-segmentation", "tags: [landslide, remote-sensing, dem]"]
    if statements.licence:
        front.append(f"license: {json.dumps(statements.licence)}")
    facts = {
        "method": f"`{description.method}`",
        "network": f"{options.encoder}, {options.decoder}, fusion {options.fusion}; {parameters:,} parameters",
        "inputs": {"image": "image", "dem": "elevation model", "both": "image and elevation model"}[options.inputs],
        "image bands": str(options.image_channels) if options.inputs != "dem" else "none",
        "terrain layers": ", ".join(network.network.preprocessing.terrain) or "none",
        "pixel size in training": _range(pixel) if pixel else NOT_STATED,
        "tile": f"{description.tile_size} pixels, elevation with a halo of {description.halo}",
        "threshold": f"{description.threshold:.4f}, chosen on validation",
        "training data": statements.data or NOT_STATED,
        "region": statements.region or NOT_STATED,
        "elevation source": statements.dem_source or ("not an input" if options.inputs == "image" else NOT_STATED),
        "licence of the weights": statements.licence or NOT_STATED,
    }
    lines = [*front, "---", "", f"# {statements.name}", "", "Finds landslides, pixel by pixel: raw layers in, probability out.", ""]
    lines += _table(("", ""), list(facts.items()))
    lines += ["", "## Use", "", "```python", "from zoo.export import PublishedModel", ""]
    lines += ['model = PublishedModel.from_pretrained("FOLDER")', f"probability = model({', '.join(network.names)})", "```", ""]
    lines += [
        "`image` holds raw values (B, C, H, W), `dem` metres (B, 1, H + 2 halo, W + 2 halo), `pixel_size` metres (B, 2); NaN is no data."
    ]
    lines += ["", "## Scores", "", *_scores(statements)]
    lines += [
        "",
        "## Known failures",
        "",
        statements.known_failures or f"{NOT_STATED.capitalize()}: check a map against ground that you know.",
    ]
    lines += ["", "## Limits", "", _limits(statements)]
    return "\n".join(lines) + "\n"


def _limits(statements: Statements) -> str:
    """What holds for any such model."""
    where = statements.region or "the region of its training data"
    return (
        f"Trained in {where}; elsewhere, at other pixel sizes or with another elevation source its scores are unknown. "
        "A map shows candidates for inspection, not an inventory, and does not say whether a slope is stable."
    )


def _scores(statements: Statements) -> list[str]:
    if not statements.scores:
        return [f"{NOT_STATED.capitalize()}: no benchmark record was given."]
    splits = [split for split in ("val", "test") if split in statements.scores]
    rows = [(name, *(_number(statements.scores[split].get(key)) for split in splits)) for name, key in _SCORES.items()]
    source = ", ".join(f"{name} {value}" for name, value in statements.provenance.items() if value is not None)
    lines = ["Of the landslide class, on one pooled confusion matrix a split, at the threshold above.", "", *_table(("", *splits), rows)]
    areas = [
        f"{split}: {values['km2']:.6g} km²" for split, values in statements.splits.items() if isinstance(values.get("km2"), int | float)
    ]
    return [*lines, "", f"From {source}.", *([f"Areas: {', '.join(areas)}."] if areas else [])]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(sides: list[float]) -> str:
    low, high = sides
    return f"{low:g} m" if f"{low:g}" == f"{high:g}" else f"{low:g} to {high:g} m"


def _table(header: tuple[str, ...], rows: "list[tuple[str, ...]]") -> list[str]:
    """A Markdown table; bars inside a cell would end it."""
    lines: list[tuple[str, ...]] = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def plain(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Entries that are stated."""
    return {name: value for name, value in mapping.items() if value not in ("", None)}
