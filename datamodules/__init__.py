"""Rasters -> scenes -> windows -> batches: the ground floor, which imports neither `zoo` nor `benchmarks`."""
