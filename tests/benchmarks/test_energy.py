"""Energy of a training, by a stand-in for NVML whose counters are known."""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmarks.callbacks import Clock
from benchmarks.energy import energy_meter
from benchmarks.record import RunRecord
from benchmarks.report.costs import costs_markdown
from benchmarks.report.rows import Row
from benchmarks.spec import RunSpec


@pytest.fixture
def nvml(monkeypatch):
    """Two GPUs and their counters [mJ], which the test advances."""
    fake = ModuleType("pynvml")
    fake.NVMLError = type("NVMLError", (Exception,), {})
    fake.counters = {"GPU-a": 5_000_000, "GPU-b": 7_000_000}

    def read(handle):
        if fake.counters[handle] is None:
            raise fake.NVMLError("not supported")
        return fake.counters[handle]

    fake.nvmlInit, fake.nvmlDeviceGetHandleByUUID, fake.nvmlDeviceGetTotalEnergyConsumption = lambda: None, lambda uuid: uuid, read
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="ab"[index]))
    return fake


def test_a_meter_adds_up_the_devices_of_the_run(nvml):
    assert energy_meter(2)() == 12_000
    assert energy_meter(1)() == 5_000


def test_without_a_counter_there_is_no_meter(nvml, monkeypatch):
    read = energy_meter(1)
    nvml.counters["GPU-a"] = None
    assert math.isnan(read()), "a counter that is lost later does not end a training"
    assert energy_meter(1) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert energy_meter(1) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert energy_meter(1) is None


def test_the_clock_counts_training_alone_and_goes_on_where_it_was_interrupted(nvml):
    fit = SimpleNamespace(state=SimpleNamespace(fn="fit"))

    def spend(joules):
        nvml.counters["GPU-a"] += 1000 * joules

    def epoch(clock, training, validation):
        spend(training)
        clock.on_validation_start(fit, None)
        spend(validation)
        clock.on_validation_end(fit, None)

    first = Clock(energy_meter(2))
    first.on_train_start(fit, None)
    epoch(first, 30, 100)
    epoch(first, 12, 100)
    assert first.train_joules == pytest.approx(42)
    second, state = Clock(energy_meter(2)), first.state_dict()
    second.setup(fit, None, "fit")
    second.load_state_dict(state)
    spend(1000)  # between the two
    second.on_train_start(fit, None)
    epoch(second, 8, 100)
    assert second.train_joules == pytest.approx(50)
    third = Clock()
    third.setup(fit, None, "fit")
    third.load_state_dict(state)
    third.on_train_start(fit, None)
    epoch(third, 8, 100)
    assert third.train_joules is None, "a part that nobody measured makes the whole unknown"


@pytest.mark.parametrize(("watt_hours", "cell"), [(12.5, "12.50"), (None, "–")])
def test_the_report_shows_watt_hours_or_a_dash(watt_hours, cell):
    spec = RunSpec("s", "row", "deeplab", {}, "d", {}, {}, 0, "f")
    cost = {"tile_gflop": 1.0, "train_watt_hours": watt_hours}
    row = Row(spec, [(None, 0)], [RunRecord(spec.key, "finished", spec.to_dict(), cost=cost)], [])
    line = next(line for line in costs_markdown(SimpleNamespace(rows=[row])).splitlines() if line.startswith("| row"))
    assert line.split("|")[6].strip() == cell
