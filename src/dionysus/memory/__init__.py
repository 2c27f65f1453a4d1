"""What the mind keeps and brings back: memories and the basins they lie in, goals, mental models."""
