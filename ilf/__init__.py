"""Inner Loop Feedback (Gwilliam et al. 2025, arXiv 2501.13107) for DiT and PixArt."""
