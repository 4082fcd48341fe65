"""One core a worker: where tests run side by side, torch and GDAL of each, and of the processes they start, keep to one thread.

And a browser for the tests of pages.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = os.environ["GDAL_NUM_THREADS"] = "1"  # before torch is imported

import pytest

from tests.browsing import CHROMIUM, DRIVER, MISSING, chromium


@pytest.fixture(scope="session")
def chromium_window(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip(MISSING)
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        yield window


@pytest.fixture
def browser(chromium_window):
    """A window whose pages may say nothing on the console and ask for nothing: either fails the test."""
    chromium_window.complaints()
    yield chromium_window
    assert chromium_window.complaints() == []
