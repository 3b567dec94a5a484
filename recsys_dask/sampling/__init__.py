"""Made-up slices in the form of the Million Playlist Dataset, with planted artist scenes."""
