"""CMBDetector: finds cerebral microbleeds in susceptibility-weighted MRI. Research use only."""

__version__ = "0.1.0"
