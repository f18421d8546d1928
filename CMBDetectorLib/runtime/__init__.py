"""The isolated runtime: what the worker computes with, in a folder of its own. Standard library only."""
