"""One core a worker: where tests run side by side, torch and GDAL of each, and of the processes they start, keep to one thread."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = os.environ["GDAL_NUM_THREADS"] = "1"  # before torch is imported
