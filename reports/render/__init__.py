"""How it looks: pages, tables, plots and terminal text."""
