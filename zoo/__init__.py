"""Batch -> losses and logits -> maps: methods that find relic landslides, and the parts they share."""
