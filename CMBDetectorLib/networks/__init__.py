"""Architectures of the two stages, in backend-neutral Keras 3."""
