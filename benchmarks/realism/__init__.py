"""How like real scans simulated ones are: what `benchmarks/realism.py` measures and how it lays it out."""
