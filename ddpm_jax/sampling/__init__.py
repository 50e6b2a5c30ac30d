"""Run a table on the device: keys, the step, the loops."""
