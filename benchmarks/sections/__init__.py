"""Sections of docs/performance.md: one file per kind of result, each with title, overview and section."""
