"""Metrics whose state is a sum, so that they are exact under any number of processes."""
