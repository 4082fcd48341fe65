"""Metrics whose state is a sum, so that they are exact under any number of processes, scenes and blocks.

counts.py       what all of them are: counts that add, scores that follow from them
pixels.py       score histograms: P, R, F1, IoU, mIoU, PA, MCC, AP, Brier, thresholds
calibration.py  from the same histograms: ECE, reliability, error of the confident, temperature
tiles.py        tiles as landslide or not
running.py      what grows batch by batch in training and test: torchmetrics
rasters.py      walking over a scene that need not fit into memory
boundary.py     outlines within tolerances in metres, boundary IoU
components.py   8-connected objects of a scene and how they overlap
objects.py      landslides found, missed and false, by every named rule
scene.py        all of it for one scene
"""
