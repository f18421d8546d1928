"""Scans with annotations on disk: BIDS, and converters from public releases."""
