"""The README is run: its commands, its links, and the Makefile targets it names."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.zoo.conftest import write_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "zoo").glob("*/README.md"))]
COMMANDS = [
    line.split("#")[0].strip() for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines() if line
]
SMALL = {
    "zoo fit": "--trainer.max_steps=2 --trainer.accelerator=cpu --trainer.enable_progress_bar=false --data.num_workers=0 --data.batch_size=2",
    "zoo test": "--accelerator=cpu",
    "zoo map": "--device=cpu",
}


def test_make_targets_exist():
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"bench", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:.*## ", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_point_to_files(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.slow
def test_commands_run_as_they_stand_but_for_their_size(tmp_path):
    write_folder(tmp_path / "DATA")
    for name, layer in (("ortho.tif", "images"), ("dem.tif", "dem")):
        (tmp_path / name).symlink_to(tmp_path / "DATA" / "test" / layer / "tile_0.tif")
    (tmp_path / "zoo").symlink_to(ROOT / "zoo")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = 0
    for command in (command for command in COMMANDS if command.startswith("zoo")):
        program, *arguments = shlex.split(command)
        module = {"zoo": "zoo", "zoo-data": "datamodules", "zoo-bench": "benchmarks"}[program]
        small = shlex.split(SMALL.get(" ".join([program, *arguments[:1]]), ""))
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments, *small], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        ran += 1
    assert ran >= 3
