"""The edge runtime: opens a bundle and a source of frames, and streams. Knows nothing of TensorFlow.

Importing this package loads no NumPy-heavy runtime at all; each part imports what it needs on use.
"""
