"""The command line and its event stream."""
