"""Nearest items by vectors: exactly, and by pynndescent's graph."""
