"""One pipeline as methods see it: noise, solvers, guidance, patches and the counting of blocks."""
