"""The guard in use."""
