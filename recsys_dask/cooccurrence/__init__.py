"""Which items share playlists: chunk counts a partition, combine merges, measures score."""
