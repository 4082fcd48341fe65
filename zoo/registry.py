"""The methods by name, and how to build one from plain values or from a checkpoint."""

import difflib
import importlib
from pathlib import Path
from typing import Any, Final, NoReturn

import jsonargparse
import torch

from datamodules.errors import UserError
from zoo.base import LandslideModule
from zoo.deeplab import DeepLab
from zoo.hpcl_net import HPCLNet
from zoo.icssn import ICSSN
from zoo.mrife import MRIFE

METHODS: Final[dict[str, type[LandslideModule]]] = {
    "deeplab": DeepLab,
    "hpcl_net": HPCLNet,
    "icssn": ICSSN,
    "mrife": MRIFE,
}
"""Stem -> class. Written by hand: a name that appears in tables and folders is never derived from another."""


class Parser(jsonargparse.ArgumentParser):
    """A parser whose complaint is one line, without the usage text and without leaving the process."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UserError` with exit code 2.

        Raises:
            UserError: Always.
        """
        raise UserError(" ".join(message.split()), "see --help or the commented files in zoo/configs", exit_code=2) from ex


def method_class(name: str) -> type[LandslideModule]:
    """The class of a stem of `METHODS`, or of a dotted class path.

    Raises:
        UserError: No such method, with the nearest names; or the class is no `LandslideModule`.
    """
    if name in METHODS:
        return METHODS[name]
    module_name, _, class_name = name.rpartition(".")
    if not module_name:
        near = difflib.get_close_matches(name, METHODS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"take one of {', '.join(METHODS)}, or a class path"
        raise UserError("no such method", hint, field="method", value=name, exit_code=2)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"cannot be imported: {error}", "check the class path and PYTHONPATH", field="method", value=name, exit_code=2
        ) from error
    if not (isinstance(found, type) and issubclass(found, LandslideModule)):
        raise UserError("is no LandslideModule", "derive it from zoo.base.LandslideModule", field="method", value=name, exit_code=2)
    return found


def check_method(name: str, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Check hyperparameters against the method's signature without building it.

    Args:
        name: Stem or class path.
        hyperparameters: Nested plain values, as under `model.init_args` of a configuration.

    Returns:
        All hyperparameters with the defaults filled in, as nested plain values.

    Raises:
        UserError: A name or value that the signature does not know.
    """
    parser = _parser(name)
    return _parse(parser, name, hyperparameters).as_dict()


def create_method(name: str, **hyperparameters: Any) -> LandslideModule:  # noqa: ANN401 - checked by the signature behind the name
    """Build a method.

    Args:
        name: Stem of `METHODS` or a class path.
        **hyperparameters: Nested plain values, for example `network={"encoder": "resnet18", "inputs": "both"}`.

    Returns:
        The module, its weights drawn from torch's global generator.

    Raises:
        UserError: A name or value that the signature does not know.
    """
    parser = _parser(name)
    arguments = parser.instantiate(_parse(parser, name, hyperparameters))
    return method_class(name)(**arguments.as_dict())


def load_checkpoint(path: str | Path) -> LandslideModule:
    """Build the method that a checkpoint holds, in evaluation mode on the CPU. The checkpoint alone suffices.

    Args:
        path: A `.ckpt` file that `zoo fit` or a benchmark wrote.

    Raises:
        UserError: No such file, or not a checkpoint of this package.
    """
    return built(read_checkpoint(path))


def built(checkpoint: dict[str, Any]) -> LandslideModule:
    """The method of a checkpoint that `read_checkpoint` has read, as `load_checkpoint` gives it."""
    described = checkpoint["landslide_zoo"]
    hyperparameters = described["hyperparameters"]
    # The pretrained weights are in the state dict, so a checkpoint needs neither hub nor package.
    hyperparameters = {**hyperparameters, "network": {**hyperparameters["network"], "weights": None}}
    module = create_method(described["method"], **hyperparameters)
    module.load_state_dict(checkpoint["state_dict"])
    return module.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, loaded with `weights_only=True`.

    Raises:
        UserError: No such file, or not a checkpoint of this package.
    """
    if not Path(path).is_file():
        raise UserError("no such file", "give a .ckpt file that `zoo fit` or `zoo-bench run` wrote", file=path, field="ckpt", exit_code=2)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"cannot be read as a checkpoint ({type(error).__name__})", "the file may be truncated; write it again", file=path
        ) from error
    if not isinstance(checkpoint, dict) or "landslide_zoo" not in checkpoint:
        raise UserError("is not a checkpoint of this package", "give a .ckpt file that `zoo fit` or `zoo-bench run` wrote", file=path)
    return checkpoint


def _parser(name: str) -> Parser:
    parser = Parser()
    parser.add_class_arguments(method_class(name))
    return parser


def _parse(parser: Parser, name: str, hyperparameters: dict[str, Any]) -> jsonargparse.Namespace:
    try:
        parsed: jsonargparse.Namespace = parser.parse_object(hyperparameters)
    except UserError as error:
        raise UserError(str(error), field="method", value=name, exit_code=2) from error
    return parsed
