"""Measurements on one GPU: correctness, training, decoding, each in a process with a time limit."""
