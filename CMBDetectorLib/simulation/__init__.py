"""Simulated SWI and T2*-GRE heads with microbleeds and their mimics."""
