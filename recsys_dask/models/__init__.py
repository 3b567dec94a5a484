"""What recommends: one model a module."""
