"""A process that has imported what runs import, and forks one process for each of them: imports are paid once a suite, not once a run.

    with Nursery() as nursery:
        child = nursery.start([sys.executable, "-m", "benchmarks.run", ...], environment=os.environ, folder=Path.cwd(), output=Path("log.txt"))

A forked process is what `python -m MODULE` is otherwise: a process group of its own, its own environment, folder and output, the module as
`__main__`, and the interpreter's own end. It outlives the nursery, as it would outlive the runner. Only `ps` tells them apart, which shows
the nursery's command for all of them.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, Self

from benchmarks.launchers import THREAD_VARIABLES

PRELOADED: Final = ("benchmarks.run", "benchmarks.checking", "albumentations", "wandb.apis.public")
"""What a run imports sooner or later; the last one by wandb, when it starts a run."""
POLL_SECONDS: Final = 0.05


class Child(Protocol):
    """A process that was started; what is used of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its number, and that of its process group."""
        ...

    def poll(self) -> int | None:
        """Its exit code, negative for the signal that killed it; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has one.

        Raises:
            subprocess.TimeoutExpired: It has none after so many seconds.
        """
        ...


@dataclass(frozen=True)
class _Request:
    """A process to be forked: `python -m module arguments`."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    input: str
    output: str


class _Line:
    """One end of a connection on which messages go both ways.

    Args:
        end: Its socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end, self._received = end, b""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            BrokenPipeError: The other side is gone.
        """
        self._end.sendall(f"{json.dumps(message)}\n".encode())

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """The next message; None if none comes in so many seconds.

        Raises:
            EOFError: The other side is gone.
        """
        while b"\n" not in self._received:
            if not select.select([self._end], [], [], seconds)[0]:
                return None
            part = self._end.recv(1 << 16)
            if not part:
                raise EOFError
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return dict(json.loads(line))

    def close(self) -> None:
        """Tell the other side that this one is gone."""
        self._end.close()


class _Forked:
    """A process that the nursery forked."""

    def __init__(self, pid: int, nursery: "Nursery") -> None:
        self.pid, self._nursery = pid, nursery

    def poll(self) -> int | None:
        return self._nursery.code_of(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return code


class Nursery:
    """Starts processes of Python modules: forked where the system does that well (Linux), else each for itself.

    Its process begins with the first request, and ends with `close` or with this process.

    Args:
        forks: Whether it does.
        preloaded: Modules that are imported once for all.
    """

    def __init__(self, *, forks: bool = sys.platform == "linux", preloaded: Sequence[str] = PRELOADED) -> None:
        self._forks, self._preloaded = forks, preloaded
        self._process: subprocess.Popen[bytes] | None = None
        self._line: _Line | None = None
        self._codes = dict[int, int | None]()  # of each process that it forked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> int | None:
        """End the nursery, and none of the processes that it has forked; its own exit code."""
        code = None
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(POLL_SECONDS)  # it may be gone already, which is told
            self._process.kill()
            self._process.wait()
        self._process = self._line = None
        for pid, known in self._codes.items():
            self._codes[pid] = -signal.SIGKILL if known is None else known  # nobody will ever know
        return code

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, output: Path, source: Path = Path(os.devnull)
    ) -> Child:
        """Start a process in a process group of its own.

        Args:
            command: Its program and arguments; `sys.executable -m MODULE ...` is forked.
            environment: All of its variables.
            folder: Where it is executed.
            output: File that its output and errors are appended to.
            source: File of its standard input.
        """
        if self._forks and tuple(command[:2]) == (sys.executable, "-m"):
            module, *arguments = command[2:]
            pid = self._fork(_Request(module, arguments, dict(environment), str(folder), str(source), str(folder / output)))
            if pid is not None:
                return _Forked(pid, self)
        with source.open("rb") as given, (folder / output).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                command, stdin=given, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=dict(environment), start_new_session=True
            )

    def ask(self, module: str, text: str = "") -> tuple[int, str]:
        """Execute a module here and now.

        Args:
            module: Its name.
            text: Its standard input.

        Returns:
            Its exit code, and what it printed, errors included.
        """
        with tempfile.TemporaryDirectory() as place:
            source, output = Path(place) / "input", Path(place) / "output"
            source.write_text(text, encoding="utf-8")
            child = self.start([sys.executable, "-m", module], environment=os.environ, folder=Path.cwd(), output=output, source=source)
            try:
                code = child.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):  # it ends where this process is interrupted
                    os.killpg(child.pid, signal.SIGKILL)
            return code, output.read_text(encoding="utf-8", errors="replace")

    def code_of(self, pid: int) -> int | None:
        """The exit code of a forked process; None while it runs. Where the nursery is gone it counts as killed, and whoever asks kills it."""
        try:
            while self._line is not None and (answer := self._line.receive(0)) is not None:
                self._codes[answer["pid"]] = answer["code"]
        except EOFError:
            print(f"the process that forks runs is gone (exit code {self.close()}), and what it forked is tried again", file=sys.stderr)
        return self._codes[pid]

    def _fork(self, request: _Request) -> int | None:
        """The number of the new process; None if there is no nursery to be had, so that the process itself will show why."""
        line = self._line or self._open()
        try:
            line.send(asdict(request))
            while "code" in (answer := line.receive() or {}):
                self._codes[answer["pid"]] = answer["code"]
            pid = int(answer["pid"])
            line.send({"kept": pid})
        except (EOFError, OSError):
            print(f"the process that forks runs is gone (exit code {self.close()}), and this one imports for itself", file=sys.stderr)
            return None
        except BaseException:
            self.close()  # interrupted: what is forked and not kept is killed
            raise
        self._codes[pid] = None
        return pid

    def _open(self) -> _Line:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this module
                [sys.executable, "-m", "benchmarks.launchers.nursery", *self._preloaded],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A pool of threads that begins at an import would not survive the fork.
                env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")},
                start_new_session=True,
            )
        self._line = _Line(ours)
        return self._line


def _serve(line: _Line) -> _Request | None:
    """Fork a process for each request, until the other side is gone.

    Returns:
        The request, in the process that was forked for it; None in the nursery, at its end.
    """
    forked = set[int]()
    while True:
        for pid in list(forked):
            if (ended := os.waitpid(pid, os.WNOHANG))[0]:
                forked.remove(pid)
                line.send({"pid": pid, "code": os.waitstatus_to_exitcode(ended[1])})
        asked = line.receive(POLL_SECONDS)
        if asked is None:
            continue
        pid = os.fork()
        if not pid:
            line.close()
            return _Request(**asked)
        forked.add(pid)
        try:
            # Here and in the new process, so that whoever hears of it can signal its group.
            with contextlib.suppress(ProcessLookupError):
                os.setpgid(pid, pid)
            line.send({"pid": pid})
            line.receive()
        except (EOFError, OSError):
            os.kill(pid, signal.SIGKILL)  # nobody knows of it
            raise


def _become(request: _Request) -> NoReturn:
    """Be `python -m module arguments`."""
    os.setpgid(0, 0)
    atexit.register(gc.unfreeze)  # extensions would take what is never collected for leaked, and tell
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    source, output = os.open(request.input, os.O_RDONLY), os.open(request.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream, file in enumerate((source, output, output)):
        os.dup2(file, stream)
    os.close(source)
    os.close(output)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    for text in (sys.stdout, sys.stderr):
        text.reconfigure(write_through=True)  # type: ignore[union-attr] # text files, as at the start of any process
    sys.argv[1:] = request.arguments  # the first one becomes the module's file
    sys.modules.pop(request.module, None)  # it is executed as `__main__`, and may be imported beside that
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    raise SystemExit(0)


def main() -> None:
    """The nursery's process, whose standard input is the connection to whom it serves."""
    line = _Line(socket.socket(fileno=os.dup(0)))
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is collected in a forked process would be copied first
    try:
        request = _serve(line)
    except (EOFError, BrokenPipeError):
        return
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main()
