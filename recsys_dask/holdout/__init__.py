"""Which playlists a fit does not see, and what of them is hidden."""
