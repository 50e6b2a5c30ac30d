"""Pipelines: from a checkpoint and a key to images."""
