"""What a reader says of the candidates: verdicts, their append-only log on disk, counts and exports."""
