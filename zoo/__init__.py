"""Batch -> losses and logits -> maps: methods that find relic landslides, and the parts they share."""

from zoo.registry import METHODS, check_method, create_method, load_checkpoint

__all__ = ["METHODS", "check_method", "create_method", "load_checkpoint"]
