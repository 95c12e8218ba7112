"""What the comparisons with other trainers share: real data, one process a measurement, tables."""
