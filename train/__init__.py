"""Training: from a recipe and a data set to a Keras model with a model card."""
