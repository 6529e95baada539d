"""PyTorch's `utils` namespace."""
