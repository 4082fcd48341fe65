"""Logs of a run beside its record: CSV, TensorBoard, Weights & Biases. They mirror the record; the record is the truth.

A logger that cannot start refuses the run before it has cost anything. One that fails later ends with a line in the log of the run and
one in its record; training, record and the other loggers go on.

__init__.py   which loggers, as options of the command line; imports no logger
running.py    the loggers of a run, and what a failing one may not do
syncing.py    finished offline runs -> the wandb server
"""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

from datamodules.errors import UserError

WandbMode = Literal["offline", "online", "off"]
FILES: Final = ("csv", "tensorboard")
"""Loggers that write files into the folder of a run, by name."""


@dataclass(frozen=True)
class LoggerOptions:
    """Which loggers a run has.

    Args:
        files: Names of `FILES`.
        wandb: `offline` keeps everything in the folder of the run, for `zoo-bench sync`; `online` sends it while the run goes on.
        artifacts: Record, histograms and best weights go to wandb too.
    """

    files: tuple[str, ...] = ("csv",)
    wandb: WandbMode = "offline"
    artifacts: bool = False

    @classmethod
    def parse(cls, loggers: str, wandb: WandbMode, *, artifacts: bool) -> Self:
        """From the values of the arguments that `add_logger_arguments` adds.

        Raises:
            UserError: An unknown name, a package that is not installed, or artefacts without wandb.
        """
        names = [] if loggers == "none" else loggers.split(",")
        for name in names:
            if name not in FILES:
                remedy = f"known: {', '.join(FILES)}, none" + ("; wandb has an option of its own, --wandb" if name == "wandb" else "")
                raise UserError("no such logger", remedy, field="--loggers", value=name, exit_code=2)
        if "tensorboard" in names and importlib.util.find_spec("tensorboard") is None:
            remedy = "pip install 'landslide-zoo[tensorboard]', or leave it out"
            raise UserError("the package tensorboard is not installed", remedy, field="--loggers", value=loggers, exit_code=2)
        if artifacts and wandb == "off":
            raise UserError("there is no wandb run to keep them", "leave out --wandb off", field="--wandb-artifacts", exit_code=2)
        return cls(tuple(dict.fromkeys(names)), wandb, artifacts)

    def arguments(self) -> list[str]:
        """The command line that gives these options; what is the default is left out."""
        default, arguments = LoggerOptions(), list[str]()
        if self.files != default.files:
            arguments += ["--loggers", ",".join(self.files) or "none"]
        if self.wandb != default.wandb:
            arguments += ["--wandb", self.wandb]
        return [*arguments, "--wandb-artifacts"] if self.artifacts else arguments


def add_logger_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--wandb`, `--wandb-artifacts` and `--loggers`."""
    text = "mirror of the logs in wandb: offline (the default; zoo-bench sync sends it later), online or off"
    parser.add_argument("--wandb", choices=get_args(WandbMode), default="offline", help=text)
    parser.add_argument("--wandb-artifacts", action="store_true", help="record and best weights go to wandb too")
    text = "logs as files in the folder of each run: csv (the default), tensorboard, csv,tensorboard or none"
    parser.add_argument("--loggers", default="csv", help=text)


def attempt(call: Callable[[], object]) -> str | None:
    """Call a logger, which is code of others and may fail in any way.

    Returns:
        None, or in one line how it failed.
    """
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever a logger raises, the run outlives it
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def require_server() -> None:
    """Ask wandb, once for a whole suite, whether it has an account and reaches its server.

    Raises:
        UserError: It does not.
    """
    import wandb  # noqa: PLC0415 - heavy, and only who goes online needs it

    remedy = "run `wandb login` where there is a network, or stay with --wandb offline and sync later"
    known: list[bool] = []
    failure = attempt(lambda: known.append(wandb.login(prompt=False)))
    if failure is not None:
        raise UserError(f"wandb cannot reach its server or is refused there ({failure})", remedy, field="wandb")
    if known != [True]:
        raise UserError("no wandb account is known here", remedy, field="wandb")
