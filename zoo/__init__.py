"""Batch -> losses and logits -> maps: methods that find relic landslides, and the parts they share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.registry import METHODS, check_method, create_method, load_checkpoint

__all__ = ["METHODS", "check_method", "create_method", "load_checkpoint"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of a module
    # The methods bring Lightning and all encoders, seconds to import; who takes a metric alone does without.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zoo import registry  # noqa: PLC0415

    return getattr(registry, name)
