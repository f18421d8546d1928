"""What is wrong with this installation: checks, each with a next step, and a report without personal data."""
