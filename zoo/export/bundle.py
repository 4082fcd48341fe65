"""Checkpoint -> a folder to publish: weights as safetensors, configuration, model card, STAC item. And back in two lines."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors.torch import load_file, save_file
from torch import Tensor

from datamodules.errors import UserError
from zoo.export.card import Statements, model_card
from zoo.export.deployed import Deployed, Description
from zoo.export.stac import stac_item
from zoo.registry import create_method

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
CARD: Final = "README.md"
ITEM: Final = "stac.json"
FORMAT: Final = "landslide-zoo/1"
_Part = TypeVar("_Part", Description, Statements)


@dataclass(frozen=True)
class BundleReport:
    """What an export came to.

    Args:
        folder: Where the files lie.
        files: Their names.
        parameters: Of the deployed network.
    """

    folder: Path
    files: tuple[str, ...]
    parameters: int


class PublishedModel(Deployed, ModelHubMixin):
    """A deployed network that is saved to and loaded from a folder, or from the hub where its user asks for that.

        model = PublishedModel.from_pretrained("FOLDER")
        probability = model(image, dem, pixel_size)

    `push_to_hub("user/name")` is the hub's own; nothing in this package calls it.

    Args:
        network: The deployed network.
        halo: Pixels of elevation beyond the image on each side.
        description: What the checkpoint says of itself.
        statements: What its author says of it, for the card.
    """

    def __init__(self, network: Any, halo: int, description: Description, statements: Statements) -> None:  # noqa: ANN401 - the mixin reads annotations
        super().__init__(network, halo)
        self.description, self.statements = description, statements

    @property
    def threshold(self) -> float:
        """Probability from which on a pixel is landslide."""
        return self.description.threshold

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the four files, each under a temporary name first; the configuration last, since it makes them a model."""
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        config = {"format": FORMAT, "description": asdict(self.description), "statements": asdict(self.statements)}
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        partial = save_directory / (WEIGHTS + ".tmp")
        save_file(weights, partial, metadata={"format": "pt"})
        partial.replace(save_directory / WEIGHTS)
        _write(save_directory / CARD, model_card(self, self.description, self.statements, parameters))
        _write(save_directory / ITEM, json.dumps(stac_item(self, self.description, self.statements, parameters), indent=2) + "\n")
        _write(save_directory / CONFIG, json.dumps(config, indent=2) + "\n")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:  # noqa: ANN401 - the mixin's signature
        """Build the network from a folder; only a name that is no folder is looked for on the hub."""
        if Path(model_id).is_dir():
            places = {name: Path(model_id) / name for name in (CONFIG, WEIGHTS)}
        else:
            known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            chosen = {name: options[name] for name in known if options.get(name) is not None}
            places = {name: Path(hf_hub_download(model_id, name, **chosen)) for name in (CONFIG, WEIGHTS)}
        description, statements = _read_config(places[CONFIG])
        return cls.build(description, statements, load_file(places[WEIGHTS]))

    @classmethod
    def build(cls, description: Description, statements: Statements, weights: Mapping[str, Tensor]) -> Self:
        """The network that a description defines, with these weights, in evaluation mode."""
        hyperparameters = description.hyperparameters
        hyperparameters = {**hyperparameters, "network": {**hyperparameters["network"], "weights": None}}
        network = create_method(description.method, **hyperparameters).network
        network.load_state_dict(dict(weights))
        model = cls(network, description.halo, description, statements)
        model.eval()
        return model


def export_bundle(ckpt: Path, out: Path, statements: Statements | None = None) -> BundleReport:
    """Write a checkpoint's deployed network as `model.safetensors`, with configuration, model card and STAC item beside it.

    Args:
        ckpt: The checkpoint.
        out: `FOLDER/model.safetensors`.
        statements: What the card is to say beyond what the checkpoint knows; None = nothing.

    Raises:
        UserError: The checkpoint cannot be read, the name is another, or the folder holds other files of these names.
    """
    if out.name != WEIGHTS:
        raise UserError(
            "a model is a folder with fixed names",
            f"give FOLDER/{WEIGHTS}, or a name that ends in .onnx",
            field="out",
            value=str(out),
            exit_code=2,
        )
    folder = out.parent
    _require_free(folder)
    deployed, description = Deployed.from_checkpoint(ckpt)
    model = PublishedModel(deployed.network, deployed.halo, description, statements or Statements()).eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    return BundleReport(folder, (WEIGHTS, CONFIG, CARD, ITEM), sum(parameter.numel() for parameter in model.network.parameters()))


def _require_free(folder: Path) -> None:
    """Refuse to write over a README or configuration that is not an earlier export's.

    Raises:
        UserError: The folder holds something else.
    """
    config = folder / CONFIG
    if config.is_file():
        _read_config(config)
        return
    taken = [name for name in (WEIGHTS, CARD, ITEM) if (folder / name).exists()]
    if taken:
        raise UserError(f"{taken[0]} is there already and no earlier export", "give an empty folder", file=folder / taken[0], field="out")


def _read_config(path: Path) -> tuple[Description, Statements]:
    """Description and statements of an exported model.

    Raises:
        UserError: Not the configuration of an exported model.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"cannot be read ({error})", "export the checkpoint again", file=path) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError("is not the configuration of an exported model", "give a folder that `zoo export` wrote", file=path, field="format")
    return _of(Description, config["description"], path), _of(Statements, config["statements"], path)


def _of(kind: type[_Part], values: Any, path: Path) -> _Part:  # noqa: ANN401 - any JSON value
    names = {item.name for item in fields(kind)}
    if not isinstance(values, dict) or set(values) != names:
        raise UserError("is damaged", "export the checkpoint again", file=path, field=kind.__name__.lower())
    return kind(**values)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
