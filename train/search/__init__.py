"""Hyperparameter search: random, coarse then fine; several processes, or a Ray cluster, share one study."""
