"""Ray: workers and nodes that die, interruption, a cluster that answers or not; every key once whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.leases import holder
from benchmarks.record import load_records
from benchmarks.runner import Places, state_of
from datamodules.errors import UserError
from tests.benchmarks.running import attempts, run, spec, wait_for

ray = pytest.importorskip("ray")

from benchmarks.launchers.ray import RayLauncher  # noqa: E402 - needs the extra

ROOT = Path(__file__).parents[2]
MOMENTS = int(os.environ.get("LANDSLIDE_KILLS", "3"))
"""At which a worker is killed; each takes a new worker and another attempt."""
INTERRUPTED = """
import sys
from pathlib import Path
from benchmarks.launchers.ray import RayLauncher
from benchmarks.runner import Places
from tests.benchmarks.running import run, spec
run([spec("hang"), spec("hang", 1)], Places(Path(sys.argv[1]), "s"), RayLauncher())
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "runs", "s")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a core each, as far as Ray knows."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(ROOT)
    cluster = Cluster()
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def launcher(cluster):
    return RayLauncher(address=cluster.address, retries=3)


def workers(pid):
    """Ray workers below a process that have a run below them."""
    found = [process for process in psutil.Process(pid).children(recursive=True) if "ray::attend_here" in " ".join(cmdline(process))]
    return [process for process in found if any("fake_run.py" in " ".join(cmdline(child)) for child in process.children())]


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
def test_a_suite_is_done_as_with_local_slots(cluster, launcher, places, tmp_path):
    specs = [spec("ok"), spec("crash"), spec("user_error"), spec("slow", 1)]
    records, said = run(specs, places, launcher)
    expected, _ = run(specs, Places(tmp_path / "local", "s"))
    assert [records[item.key].status for item in specs] == ["finished", "failed", "failed", "finished"]
    for item in specs:
        assert records[item.key].metrics == expected[item.key].metrics
        assert (records[item.key].error or {}).get("reason") == (expected[item.key].error or {}).get("reason")
    assert said.count("started") == 4
    assert [attempts(places, item) for item in specs] == [1] * 4, "what fails by itself is not tried again"
    with pytest.raises(UserError, match="--devices-per-run"):
        RayLauncher(address=cluster.address, devices_per_run=2)


@pytest.mark.slow
def test_when_a_node_dies_while_it_works_the_other_one_completes_the_suite(cluster, launcher, places):
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    wait_for(lambda: len([each for each in ray.nodes() if each["Alive"]]) == 2)
    specs = [spec("slow", seed) for seed in range(8)]
    raylet = next(info.process.pid for kind, infos in node.all_processes.items() if kind == "raylet" for info in infos)

    def news():
        for event in execute(jobs):
            yield event
            if not dead and workers(raylet):
                dead.append(node)
                cluster.remove_node(node, allow_graceful=False)

    execute, dead = launcher.execute, []
    launcher.execute = lambda handed: (jobs.extend(handed), news())[1]
    jobs = []
    records, said = run(specs, places, launcher)
    assert dead, "no run was ever on that node"
    assert [records[item.key].status for item in specs] == ["finished"] * 8
    assert said.count("finished  row slow") == 8
    assert "again     row slow" in said
    assert "Ray lost the run" in said
    assert "attempt 2 of 4 follows" in said
    assert sum(attempts(places, item) for item in specs) <= 8 + said.count("again     ")


@pytest.mark.slow
def test_workers_that_are_killed_at_any_moment_leave_no_half_and_no_double_run(cluster, places, tmp_path):
    generator, specs = random.Random(0), [spec("slow", seed) for seed in range(4)]
    whole, _ = run(specs, Places(tmp_path / "whole", "s"))
    launcher, killed = RayLauncher(address=cluster.address, retries=MOMENTS), set()
    execute = launcher.execute

    def news(jobs):
        for event in execute(jobs):
            yield event
            for worker in workers(cluster.head_node.all_processes["raylet"][0].process.pid) if len(killed) < MOMENTS else []:
                if worker.pid not in killed:
                    time.sleep(generator.uniform(0, 0.8))
                    worker.kill()
                    killed.add(worker.pid)

    launcher.execute = news
    records, said = run(specs, places, launcher)
    assert len(killed) == MOMENTS
    assert {key: record.metrics for key, record in records.items()} == {key: record.metrics for key, record in whole.items()}
    assert [records[item.key].status for item in specs] == ["finished"] * 4
    assert not list(places.records.glob(".*")), "half written"
    assert not any(holder(places.run(item.key)) for item in specs), "a run outlived its worker"
    again = said.count("again     row slow")
    assert 0 < again <= MOMENTS, "who had left its record was not done again"
    assert sum(attempts(places, item) for item in specs) <= 4 + again


@pytest.mark.slow
def test_interrupting_the_runner_ends_runs_and_ray(tmp_path):
    places = Places(tmp_path, "s")
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    hanging = [spec("hang"), spec("hang", 1)]
    notes = [places.run(item.key) / "pids" for item in hanging]
    try:
        wait_for(lambda: process.poll() is not None or any(note.is_file() and note.read_text() for note in notes), seconds=300)
        below = psutil.Process(process.pid).children(recursive=True)
        assert any("raylet" in " ".join(cmdline(child)) for child in below)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()  # Ray goes with it
    assert b"KeyboardInterrupt" in stderr
    _, alive = psutil.wait_procs(below, timeout=15)
    assert not [cmdline(process) for process in alive]
    records = load_records(places.records)
    assert not records
    assert "interrupted" in {state_of(item, records, places) for item in hanging}


def test_no_cluster_and_no_ray_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"landslide-zoo\[ray\]"):
        RayLauncher()
