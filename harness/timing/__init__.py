"""Time and memory, measured in interleaved rounds."""
