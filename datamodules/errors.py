"""One way to tell users what is wrong with their input: file, field, value, remedy; one line, no traceback."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


class UserError(Exception):
    """A mistake in the input that the user can mend.

    Args:
        problem: What is wrong, in a few words.
        remedy: What to do about it.
        file: The file it is in.
        field: The column, key, band or option it concerns.
        value: The offending value.
        exit_code: 1 for bad input, 2 for bad usage (a wrong option or configuration).
    """

    def __init__(
        self,
        problem: str,
        remedy: str = "",
        *,
        file: str | os.PathLike[str] | None = None,
        field: str | None = None,
        value: object = None,
        exit_code: int = 1,
    ) -> None:
        # A DataLoader worker rebuilds its exception from the message alone, hence everything but `problem` is optional.
        where = [str(Path(file))] if file is not None else []
        if field is not None:
            where.append(f"{field} = {value!r}" if value is not None else field)
        message = ": ".join([*where, problem])
        self.problem, self.remedy = message, remedy
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.exit_code = exit_code


def one_line(error: UserError) -> str:
    """The message without the traceback that a DataLoader worker wraps around it."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.rsplit(f"{UserError.__name__}: ", 1)[-1]
    return " ".join(text.split())


def exit_with(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and leave with its exit code; a `UserError` becomes one line on standard error.

    Args:
        main: Takes the arguments, returns the exit code (0 done, 1 a run or check failed, 2 usage).
        arguments: The command line without the program; default `sys.argv[1:]`. `--debug` anywhere in it shows tracebacks.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        code = main(given)
    except UserError as error:
        if debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}the disk is full; free some space and run the same command again, what is finished is kept", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
