"""Suites -> runs -> records -> report: the top floor."""
