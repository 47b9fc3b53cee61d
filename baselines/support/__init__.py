"""What caches and calibrations share."""
