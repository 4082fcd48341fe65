"""The process that forks runs: what it forks is what `python -m` starts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.launchers import nursery as nurseries
from benchmarks.launchers.nursery import Nursery
from tests.benchmarks.running import wait_for

PROBE = """
import atexit, json, os, signal, sys
atexit.register(lambda: print("the end", flush=True))
print(json.dumps({
    "name": __name__, "spec": sys.modules["__main__"].__spec__.name, "argv": sys.argv, "folder": os.getcwd(), "input": sys.stdin.read(),
    "variables": dict(sorted(os.environ.items())), "leads": os.getpgrp() == os.getpid(), "preloaded": "wave" in sys.modules,
    "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "open": sorted(map(int, os.listdir("/proc/self/fd")))[:4],
}))
if sys.argv[1:] == ["fails"]:
    raise ValueError("it was told to")
sys.exit(len(sys.argv) - 1)
"""
SLEEPER = "import pathlib, sys, time\npathlib.Path('began').touch()\ntime.sleep(float(sys.argv[1]))\npathlib.Path('ended').touch()\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with modules that say what they see; `python -m` looks there first."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nursery(place):
    with Nursery(preloaded=["wave"]) as nursery:
        yield nursery


def started(nursery, place, *arguments, log="log.txt", **options):
    command = [sys.executable, "-m", *arguments]
    return nursery.start(command, environment={**os.environ, "GIVEN": "x"}, folder=place, output=place / log, **options)


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize(("arguments", "code"), [(("one", "two"), 2), ((), 0), (("fails",), 1)])
def test_a_forked_process_is_as_one_by_itself(nursery, place, arguments, code):
    (place / "source").write_text("given")
    said = []
    for start, log in ((nursery, "forked.txt"), (Nursery(forks=False), "alone.txt")):
        assert started(start, place, "probe", *arguments, log=log, source=place / "source").wait(20) == code
        said.append((place / log).read_text())
    forked, alone = (json.loads(next(line for line in text.splitlines() if line.startswith("{"))) for text in said)
    assert (forked.pop("preloaded"), alone.pop("preloaded")) == (True, False)
    assert forked == alone
    assert forked["name"] == "__main__"
    assert forked["leads"]
    for text in said:
        assert "the end" in text.splitlines(), "the interpreter has its own end"
        assert ("ValueError: it was told to" in text) == (code == 1)


def test_processes_live_beside_each_other_and_tell_how_they_ended(nursery, place):
    sleeping = started(nursery, place, "sleeper", "60", log="a.txt")
    wait_for((place / "began").is_file)
    codes = [started(nursery, place, "probe", *"x" * count, log=f"{count}.txt") for count in range(4)]
    assert [child.wait(20) for child in codes] == [0, 1, 2, 3]
    assert sleeping.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        sleeping.wait(0.1)
    os.killpg(sleeping.pid, signal.SIGTERM)
    assert sleeping.wait(20) == -signal.SIGTERM
    assert sleeping.poll() == -signal.SIGTERM, "also when it is asked again"


def test_what_is_asked_is_answered(nursery, place):
    code, said = nursery.ask("probe", "text")
    assert (code, json.loads(said.splitlines()[0])["input"]) == (0, "text")
    code, said = nursery.ask("no.such.module")
    assert code == 1
    assert "no.such" in said


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_nursery_that_is_killed_gives_its_processes_up_and_a_new_one_follows(nursery, place, capfd, asked_before):
    sleeping = started(nursery, place, "sleeper", "60")
    wait_for((place / "began").is_file)
    os.kill(nursery._process.pid, signal.SIGKILL)
    if asked_before:
        wait_for(lambda: sleeping.poll() == -signal.SIGKILL)
    assert started(nursery, place, "probe", "one").wait(20) == 1
    assert "is gone (exit code -9)" in capfd.readouterr().err
    assert sleeping.poll() == -signal.SIGKILL
    os.killpg(sleeping.pid, signal.SIGKILL)  # as `Process` does
    assert started(nursery, place, "probe", log="another.txt").wait(20) == 0


def test_a_nursery_that_cannot_begin_says_so_and_processes_start_by_themselves(place, capfd):
    with Nursery(preloaded=["no.such.module"]) as nursery:
        assert started(nursery, place, "probe", "one").wait(20) == 1
    assert "is gone (exit code 1), and this one imports for itself" in capfd.readouterr().err
    assert json.loads((place / "log.txt").read_text().splitlines()[0])["argv"][1:] == ["one"]


def test_a_runner_that_is_killed_takes_the_nursery_along_and_no_run(place):
    program = f"""
import os, pathlib, sys
from benchmarks.launchers.nursery import Nursery
nursery = Nursery(preloaded=[])
nursery.start([sys.executable, "-m", "sleeper", "1.5"], environment=os.environ, folder=pathlib.Path({str(place)!r}), output=pathlib.Path("log.txt"))
print(nursery._process.pid, flush=True)
while not os.path.exists("began"):
    pass
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_for(lambda: not is_alive(int(done.stdout)))
    assert not (place / "ended").exists(), "it was still at work"
    wait_for((place / "ended").is_file)


def test_a_process_that_nobody_came_to_know_is_killed(nursery, place):
    line = nursery._open()
    line.send(vars(nurseries._Request("sleeper", ["60"], dict(os.environ), str(place), os.devnull, str(place / "log.txt"))))
    pid = line.receive()["pid"]
    assert is_alive(pid)
    line.close()  # instead of a word that it is kept
    wait_for(lambda: not is_alive(pid))


@pytest.mark.slow
def test_what_is_preloaded_starts_no_threads_and_wakes_no_gpu(place):
    (place / "probe.py").write_text(
        "import os, sys, torch\nassert 'lightning' in sys.modules\n"
        "print(len(os.listdir('/proc/self/task')), torch.cuda.is_initialized(), torch.cuda._cached_device_count)"
    )
    with Nursery() as nursery:
        assert nursery.ask("probe") == (0, "1 False None\n")
        assert len(list(Path(f"/proc/{nursery._process.pid}/task").iterdir())) == 1, (
            "a fork takes no threads along, and what they hold stays held"
        )
