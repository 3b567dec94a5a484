"""Embeddings: training rows, loaders, the row-wise optimiser and the fastai learners. torch and fastai live here."""
