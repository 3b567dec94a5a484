"""What comes in: one format a file."""
