"""Training embeddings: rows, loaders, optimiser, learner."""
