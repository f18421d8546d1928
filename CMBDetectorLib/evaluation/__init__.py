"""Matching of candidates with annotations, FROC."""
