"""Suites -> runs -> records -> report: the top floor.

    suites/NAME.yaml                       what to compare: data, budget, seeds, rows
    runs/data/                             synthetic scenes, folds, audits, hashes of data files
    runs/NAME/KEY/                         working state of one run: spec.json, audit.json, log.txt, checkpoints/, csv/, tensorboard/, wandb/
    runs/NAME/{records/,REPORT.md,results.csv}     its results, or below another folder by --results:
    results/NAME/{records/,REPORT.md,results.csv}  those that are part of the repository

`runs/` may be deleted at any time; a folder of records is all that a report needs.
"""
