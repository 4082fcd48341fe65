"""Status: what is stale, and every reason for it."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import pytest

from benchmarks import environment, status
from benchmarks.record import RunRecord
from benchmarks.runner import Places
from benchmarks.spec import RunSpec
from benchmarks.status import status_of, status_table

SPEC = RunSpec("s", "row", "deeplab", {"network": {"inputs": "image"}}, "d", {"tile_size": 64}, {"max_steps": 4}, 0, "new")


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "runs", "s")


@pytest.fixture(autouse=True)
def _today(monkeypatch):
    monkeypatch.setattr(status, "changed_since", lambda git: "" if git["commit"] == "now" else f"2 files differ from {git['commit']}")
    monkeypatch.setattr(status, "versions", lambda: {"torch": "2.15.0", "timm": "1.0"})


def record(spec, commit="now", torch="2.15.0", **changes):
    made = {"git": {"commit": commit}, "packages": {"torch": torch, "timm": "1.0"}, "date": "2026-01-01"}
    return RunRecord(spec.key, "finished", spec.to_dict(), environment=made, **changes)


def only(places, *records, spec=SPEC, keyed=True):
    (found,) = status_of([spec], {one.key: one for one in records}, places, keyed=keyed)
    return found


def test_a_record_of_today_has_no_reason(places):
    assert dataclasses.astuple(only(places, record(SPEC)))[1] == "finished"
    assert only(places, record(SPEC)).notes == ()
    assert only(places).state == "waiting"


def test_code_and_packages_that_changed_are_told_and_the_record_is_kept(places):
    found = only(places, record(SPEC, commit="abc", torch="2.14.0"))
    assert (found.state, found.notes) == ("finished", ("code: 2 files differ from abc", "torch 2.14.0, now 2.15.0"))


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        ({"data_fingerprint": "old"}, "data old, now new"),
        ({"protocol": 0}, "protocol 0, now 1"),
        ({"budget": {"max_steps": 8}}, "budget.max_steps 8, now 4"),
        ({"hyperparameters": {"network": {"inputs": "both"}}}, 'hyperparameters.network.inputs "both", now "image"'),
        ({"hyperparameters": {}}, 'hyperparameters.network.inputs not stated, now "image"'),
        ({"split": {"folds": 3}}, "split.folds 3, now not stated"),
    ],
)
def test_what_would_be_done_again_is_stale_with_its_reason(places, old, reason):
    before = record(dataclasses.replace(SPEC, **old), commit="abc")
    found = only(places, before)
    assert (found.state, found.notes) == ("stale", (reason, "code: 2 files differ from abc"))
    assert found.record is before


def test_other_rows_seeds_and_folds_are_nobodys_past(places):
    for other in ({"seed": 1}, {"fold": 1}, {"name": "else", "method": "else"}):
        assert only(places, record(dataclasses.replace(SPEC, **other))).state == "waiting"


def test_failed_interrupted_and_running_runs(places):
    failed = RunRecord(SPEC.key, "failed", SPEC.to_dict(), error={"line": "ValueError: x", "log": "l.txt", "reason": "exit code 1"})
    assert only(places, failed).notes == ("ValueError: x (log: l.txt)",)
    work = places.run(SPEC.key)
    (work / "checkpoints").mkdir(parents=True)
    (work / "checkpoints" / "last.ckpt").touch()
    assert only(places).state == "interrupted"
    child = subprocess.Popen([sys.executable, "-c", "input()", str(work / "spec.json")], stdin=subprocess.PIPE)
    try:
        (work / "lease.1.json").write_text(json.dumps({"host": socket.gethostname(), "pid": child.pid}))
        assert only(places, failed).state == "running"
        assert only(places).notes == (f"process {child.pid}",)
    finally:
        child.communicate(b"\n")
    assert only(places).state == "interrupted", "it has ended"
    (work / "lease.1.json").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert only(places).notes == ("process 1 on elsewhere",)


def test_without_data_settings_tell_whose_record_is_whose(places):
    found = only(
        places, record(dataclasses.replace(SPEC, data_fingerprint="old")), spec=dataclasses.replace(SPEC, data_fingerprint=""), keyed=False
    )
    assert (found.state, found.notes) == ("finished", ())


def test_the_table_counts_states(places):
    other = dataclasses.replace(SPEC, seed=1)
    found = status_of([SPEC, other], {SPEC.key: record(SPEC)}, places)
    title, header, lines = status_table("s", found)
    assert title == "s: 1 of 2 runs finished, 1 waiting"
    assert [line[header.index("state")] for line in lines] == ["finished", "waiting"]


def test_code_is_compared_file_by_file(tmp_path, monkeypatch):
    def git(*arguments):
        environment_ = {**os.environ, **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}
        return subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True, text=True, env=environment_).stdout

    git("init", "-q")
    for name in ("benchmarks/a.py", "zoo/b.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "benchmarks" / "a.py"))
    first = environment.code_state()
    assert environment.changed_since(first) == ""
    (tmp_path / "README.md").write_text("2\n")
    git("commit", "-qam", "two")
    assert environment.changed_since(first) == "", "a README cannot change a score"
    (tmp_path / "zoo" / "b.py").write_text("2\n")
    (tmp_path / "zoo" / "new.py").write_text("2\n")
    assert environment.changed_since(first) == f"2 files differ from {first['commit'][:12]}"
    dirty = environment.code_state()
    assert environment.changed_since(dirty) == ""
    git("add", ".")
    git("commit", "-qm", "three")
    assert "uncommitted changes" in environment.changed_since(dirty)
    assert "not in this repository" in environment.changed_since({"commit": "0" * 40, "dirty": False, "changes": None})
    assert environment.changed_since({"commit": None, "dirty": None, "changes": None}) == "made outside a repository"
