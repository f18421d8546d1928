"""The two trained stages applied to a scan."""
