"""The bundled tiny scorers."""
