"""Leases: one holder at a time, whoever is killed; and several runners on one suite, each key once."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import leases
from benchmarks.leases import holder, take
from benchmarks.record import load_records
from benchmarks.runner import Places
from tests.benchmarks.running import attempts, run, spec, wait_for

ROOT = Path(__file__).parents[2]
HAMMER = """
import os, sys, time
from pathlib import Path
from benchmarks.leases import take
work, until = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    lease = take(work)
    if lease is not None:
        inside = os.open(work / "inside", os.O_CREAT | os.O_EXCL)
        with open(work / "log", "a") as log:
            log.write("x")
        os.close(inside)
        os.unlink(work / "inside")
        lease.release()
"""
RUNNER = """
import sys
from pathlib import Path
from benchmarks.runner import Places
from tests.benchmarks.running import run, spec
print(run([spec(method, int(seed)) for method, seed in (item.split(":") for item in sys.argv[2:])], Places(Path(sys.argv[1]), "s"))[1])
"""
FULL = "from datamodules.errors import exit_with\n" + "\n".join(
    ["def main(arguments):", *(f"    {line}" for line in RUNNER.strip().splitlines()), "    return 0", "exit_with(main)"]
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def work(tmp_path):
    return tmp_path / "0123abcd"


def start_runner(runs, *items):
    return subprocess.Popen([sys.executable, "-c", RUNNER, str(runs), *items], stdout=subprocess.PIPE, text=True)


def test_of_many_processes_one_holds_the_lease(work):
    processes = [subprocess.Popen([sys.executable, "-c", HAMMER, str(work), "3"], stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [b""] * 4, "two were inside at a time"
    assert len((work / "log").read_text()) > 100
    assert holder(work) == "", "released"
    assert len(list(work.glob("lease*"))) == 1, "the last one stays, so that numbers go on"


def test_the_lease_of_a_process_that_was_killed_lapses_at_once_on_its_host(work):
    program = "import sys, time; from pathlib import Path; from benchmarks.leases import take; take(Path(sys.argv[1])); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", program, str(work)])
    wait_for(lambda: holder(work) == f"process {process.pid}")
    assert take(work) is None
    process.kill()
    wait_for(lambda: holder(work) == "")  # not collected yet: a zombie holds nothing
    lease = take(work)
    process.wait()
    assert lease.number == 2
    lease.release()
    assert [path.name for path in work.glob("lease*")] == ["lease.2.json"], "the lapsed one is cleared away"
    with take(work) as again:
        assert again.number == 3


def test_a_process_of_another_host_holds_as_long_as_its_heart_beats(work, monkeypatch):
    work.mkdir()
    path = work / "lease.7.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 5}))
    assert holder(work) == "process 5 on elsewhere"
    assert take(work) is None
    os.utime(path, (0, 0))
    assert holder(work) == ""
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    with take(work) as lease:
        assert lease.path.name == "lease.8.json"
        os.utime(lease.path, (0, 0))
        wait_for(lambda: lease.path.stat().st_mtime > 0)


def test_a_lease_without_words_is_that_of_a_process_that_begins_or_that_died_as_it_began(work):
    work.mkdir()
    (work / "lease.1.json").touch()
    assert take(work) is None
    os.utime(work / "lease.1.json", (0, 0))
    with take(work) as lease:
        assert lease.number == 2


def test_who_judged_an_old_state_withdraws(work, monkeypatch):
    take(work).release()
    judged = list(leases._leases(work))
    take(work).release()
    with take(work) as lease:
        assert lease.number == 3
        states = iter([judged])
        monkeypatch.setattr(leases, "_leases", lambda folder, original=leases._leases: next(states, None) or original(folder))
        assert take(work) is None
        assert [path.name for path in work.glob("lease*")] == ["lease.3.json"]


def test_runners_that_start_together_do_every_run_once(tmp_path):
    places = Places(tmp_path, "s")
    items = [f"slow:{seed}" for seed in range(6)]
    runners = [start_runner(tmp_path, *items) for _ in range(3)]
    said = [runner.communicate(timeout=120)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0, 0]
    specs = [spec("slow", seed) for seed in range(6)]
    assert [attempts(places, item) for item in specs] == [1] * 6
    assert load_records(places.records).keys() == {item.key for item in specs}
    for text in said:
        assert text.count("finished  row slow") == 6, "each runner sees the whole suite through"
    assert sum(text.count("elsewhere row slow") for text in said) > 0


@pytest.mark.slow
def test_runners_that_are_killed_at_any_moment_leave_no_half_and_no_double_run(tmp_path):
    generator = random.Random(0)
    places = Places(tmp_path, "s")
    specs = [spec("slow", seed) for seed in range(8)]
    for _ in range(20):
        runner = start_runner(tmp_path, *(f"slow:{seed}" for seed in range(8)))
        time.sleep(generator.uniform(0, 2.5))
        runner.send_signal(signal.SIGKILL)
        runner.communicate()
        for path in places.records.glob("*.json"):
            assert json.loads(path.read_text())["status"] == "finished"
    records, _ = run(specs, places)
    assert records.keys() == {item.key for item in specs}
    # Whoever was orphaned went on, and was waited for.
    assert [attempts(places, item) for item in specs] == [1] * 8
    assert not list(places.records.glob(".*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts nothing")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_ends_the_suite_with_a_clear_line_and_spoils_nothing(small_disk):
    command = [sys.executable, "-c", FULL, str(small_disk), "ok:0", "ok:1"]
    first = subprocess.run([*command[:-1]], capture_output=True, text=True, check=False, timeout=60)
    assert first.returncode == 0
    places = Places(small_disk, "s")
    kept = {path: path.read_bytes() for path in places.records.iterdir()}
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert "error: " in second.stderr
    assert "the disk is full" in second.stderr
    assert "Traceback" not in second.stderr
    assert {path: path.read_bytes() for path in places.records.iterdir()} == kept
    ballast.unlink()
    third = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert third.returncode == 0, third.stderr
    assert load_records(places.records).keys() == {spec("ok", 0).key, spec("ok", 1).key}
