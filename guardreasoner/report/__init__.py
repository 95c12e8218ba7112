"""Self-contained HTML pages, plots and terminal tables that show results."""
