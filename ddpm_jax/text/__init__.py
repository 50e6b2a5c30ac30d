"""Texts to the ids of a text encoder's tokens."""
