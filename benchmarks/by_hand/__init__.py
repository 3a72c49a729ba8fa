"""Loops written by hand, one file for each way: JAX, Flax NNX, TensorFlow, PyTorch."""
