"""Patches, augmentation, mimics, fitting and leave-N-out cross-validation."""
