"""A sampler is a table of numbers, written on the host."""
