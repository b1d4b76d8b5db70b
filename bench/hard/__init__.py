"""Classifiers of CIFAR-10 that are hard to quantize, really trained: for `bench/quantization.py`."""
