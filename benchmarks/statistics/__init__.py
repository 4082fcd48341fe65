"""How sure a score is: functions of plain arrays, which know nothing of records and reports, and import no torch.

seeds.py         mean, spread and interquartile mean over seeds; how many seeds a difference would need
units.py         score histograms of tiles -> confusion counts of the units that the bootstrap draws
bootstrap.py     pooled scores under draws of units: intervals, paired differences, p values
significance.py  Holm's correction for many comparisons; the corrected t test for folds
"""

from benchmarks.statistics.bootstrap import MIN_UNITS, POOLED, Estimate, Resampled, pooled_score, resample
from benchmarks.statistics.seeds import SeedError, Spread, pooled_std, seed_error, seeds_needed, spread
from benchmarks.statistics.significance import FoldTest, corrected_t_test, holm
from benchmarks.statistics.units import UnitCounts, unit_counts

__all__ = [
    "MIN_UNITS",
    "POOLED",
    "Estimate",
    "FoldTest",
    "Resampled",
    "SeedError",
    "Spread",
    "UnitCounts",
    "corrected_t_test",
    "holm",
    "pooled_score",
    "pooled_std",
    "resample",
    "seed_error",
    "seeds_needed",
    "spread",
    "unit_counts",
]
