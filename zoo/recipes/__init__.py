"""The recipes that rebuild the bundled models."""
