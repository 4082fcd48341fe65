"""What counts as a change of the code."""

import subprocess

import pytest

from benchmarks import environment


@pytest.fixture
def repository(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True, capture_output=True)

    for name in ("zoo/base.py", "benchmarks/environment.py", "benchmarks/results/mars/REPORT.md", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git("init")
    git("add", "-A")
    git("commit", "-m", "m")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "benchmarks" / "environment.py"))
    return tmp_path


def test_only_code_makes_it_dirty(repository):
    clean = environment.code_state()
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    for name in ("README.md", "benchmarks/results/mars/REPORT.md", "benchmarks/new.yaml"):
        (repository / name).write_text("2")
    assert environment.code_state() == clean
    (repository / "zoo/base.py").write_text("2")
    changed = environment.code_state()
    assert changed["dirty"] is True
    (repository / "zoo/base.py").write_text("3")
    assert environment.code_state()["changes"] != changed["changes"]


def test_a_new_file_of_code_makes_it_dirty(repository):
    (repository / "zoo/new.py").write_text("1")
    assert environment.code_state()["dirty"] is True


def test_outside_a_repository_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.code_state() == {"commit": None, "dirty": None, "changes": None}
