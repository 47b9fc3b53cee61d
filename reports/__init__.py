"""Reports built from finished runs: tables, figures, one self-contained page, the history and the regression gate."""
