"""Evaluation: measures of how good generated images are."""
