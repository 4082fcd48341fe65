"""Are the settings of all runs ones that methods and data module know, and do their splits leak? Asked before anything starts.

    python -m benchmarks.checking < REQUEST.json

In a process of its own: the answer needs torch and the whole zoo, a gigabyte that the runner would hold on to for as long as runs last.
"""

import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from benchmarks.auditing import prepare
from benchmarks.composing import near
from benchmarks.dataset import Portion
from benchmarks.launchers.nursery import Nursery
from benchmarks.spec import RunSpec
from benchmarks.suite import RESERVED_SETTINGS
from datamodules.errors import UserError, exit_with


def check_in_child(nursery: Nursery, specs: Sequence[RunSpec], portions: Sequence[Portion] = ()) -> None:
    """`check_specs`, then `auditing.prepare`, in a process of its own.

    Args:
        nursery: Forks it.
        specs: What is to be run.
        portions: What it will read; none for a check of the settings alone.

    Raises:
        UserError: Names row, field and remedy.
    """
    code, said = nursery.ask(
        "benchmarks.checking",
        json.dumps({"specs": [spec.to_dict() for spec in specs], "portions": [plain(portion) for portion in portions]}),
    )
    if code:
        lines = said.strip().splitlines() or [f"the check of the suite ended with {code}"]
        told = [line for line in lines if line.startswith("error: ")]  # libraries may have a last word of their own
        raise UserError((told or lines)[-1].removeprefix("error: "), exit_code=code)


def plain(portion: Portion) -> dict[str, Any]:
    """A portion for the child's standard input."""
    return {**dataclasses.asdict(portion), "root": str(portion.root), "runs": str(portion.runs)}


def check_specs(specs: Sequence[RunSpec]) -> None:
    """Refuse unknown methods, hyperparameters and data settings.

    Raises:
        UserError: Names row, field and remedy.
    """
    import zoo  # noqa: PLC0415 - the runner imports this module, and must stay light

    for spec in {spec.identity: spec for spec in specs}.values():
        try:
            _check_data_settings(spec.data_settings)
            if not spec.is_reference:
                zoo.check_method(spec.method, spec.hyperparameters)
        except UserError as error:
            raise UserError(str(error), field=f"row {spec.name}", exit_code=2) from error


def _check_data_settings(settings: Mapping[str, Any]) -> None:
    from datamodules.landslide import LandslideDataModule  # noqa: PLC0415 - as above

    known = [name for name in inspect.signature(LandslideDataModule).parameters if name not in RESERVED_SETTINGS]
    for name in settings:
        if name not in known:
            raise UserError("unknown setting", near(name, known), field=f"data.settings.{name}", exit_code=2)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(LandslideDataModule, skip=set(RESERVED_SETTINGS))
    try:
        parser.parse_object(dict(settings))
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split()), field="data.settings", exit_code=2) from None


def main(arguments: Sequence[str]) -> int:
    """Check the specs and portions on standard input."""
    if arguments:
        raise UserError("takes no arguments", "give the specs on standard input", exit_code=2)
    request = json.load(sys.stdin)
    check_specs([RunSpec.from_dict(values) for values in request["specs"]])
    if request["portions"]:
        prepare(Portion(**{**values, "root": Path(values["root"]), "runs": Path(values["runs"])}) for values in request["portions"])
    return 0


if __name__ == "__main__":
    exit_with(main)
