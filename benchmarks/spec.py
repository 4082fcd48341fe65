"""What one run is: all that determines its score, and the names by which people know it.

`RunSpec.key` hashes an explicit allow-list of its fields, so that a result is found again whatever devices, workers, paths or names of
rows were used to make it.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

PROTOCOL: Final = 1
"""Version of what `benchmarks.run` does with a spec; raised when the same spec would score differently, and part of each key."""

REFERENCES: Final = ("all_background", "slope_threshold")
Reference = Literal["all_background", "slope_threshold"]
PublishedSet = Literal["icssn_mrife", "hpcl"]
"""Test sets that the papers' numbers are of; see published.yaml."""


@dataclass(frozen=True)
class RunSpec:
    """All that determines the score of one run, plus the names (`suite`, `name`, `data_name`) by which people know it."""

    suite: str
    name: str
    method: str
    hyperparameters: dict[str, Any]
    data_name: str
    data_settings: dict[str, Any]
    budget: dict[str, Any] | None
    """Fields of `Budget`; None for a reference row, which trains nothing."""
    seed: int | None
    """None for a reference row."""
    data_fingerprint: str = ""
    """Hash of the contents of the data set (`dataset.fingerprint`), before folds are made of it; empty as long as the data were not
    looked at."""
    fold: int | None = None
    """From 0; None where the splits are those of the data."""
    split: dict[str, Any] | None = None
    """`Split.settings`, which decide the fold."""
    published_set: PublishedSet | None = None
    """Test set of the papers that the data were declared to be; a mere name."""
    protocol: int = 1
    """`PROTOCOL` at the time; 1 in records that do not say."""

    # The allow-list. A field that is missing here can never make a finished result look stale; one that is wrongly missing
    # would reuse results that it changes. The tests hold both directions.
    KEYED: typing.ClassVar[tuple[str, ...]] = (
        *("protocol", "method", "hyperparameters", "data_settings", "data_fingerprint", "budget", "seed"),
        *("fold", "split"),
    )

    @property
    def key(self) -> str:
        """Twelve hex digits that name the run and its record."""
        return self._hash(self.KEYED)

    @property
    def identity(self) -> str:
        """The key without data contents, fold and seed: equal for the records that belong into one row of a report."""
        return self._hash(tuple(name for name in self.KEYED if name not in {"data_fingerprint", "fold", "seed"}))

    @property
    def title(self) -> str:
        """Row, fold and seed, for people."""
        fold = "" if self.fold is None else f", fold {self.fold}"
        return self.name + fold + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def is_reference(self) -> bool:
        """True for rows that train nothing."""
        return self.method in REFERENCES

    def _hash(self, names: Sequence[str]) -> str:
        content = {name: getattr(self, name) for name in names}
        for name in ("fold", "split"):
            if content.get(name) is None:
                content.pop(name, None)  # keys of runs without folds are older than folds
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The inverse of `to_dict`."""
        return cls(**values)
