"""Recommendations and Pareto fronts."""
