"""Networks that are hard to quantize, really trained: for `bench/quantization.py`, `bench/repairs.py` and tests."""
