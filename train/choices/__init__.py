"""The choices of a training, by name: what a recipe's fields may say, and what each is.

Heavy modules are not imported here: `structure` rebuilds a network with other activations, norms and
dropout, `inputs` puts a first layer before it, `initialise` draws its weights, `optimise` makes its optimiser.
"""

from __future__ import annotations

OWN = "own"
"""As the architecture has it, unchanged."""

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "maxout", "gelu")
INITIALISERS = ("glorot", "he", "orthogonal", "random_walk", "data_dependent", "lsuv")
PREPROCESSES = ("none", "mean", "standardise", "whiten")
NORMS = ("batch", "none")
OPTIMISERS = ("sgd", "adam", "adadelta")
SCHEDULES = ("cosine", "constant", "step", "linear", "one_cycle", "exponential")
PRECISIONS = ("float32", "mixed_bfloat16")
"""Of the arithmetic while training, by Keras's names. Weights, statistics, logits and loss stay in float32."""
