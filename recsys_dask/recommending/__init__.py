"""Recommenders over a store: what they know of it, how they are fitted, and how they are opened."""
