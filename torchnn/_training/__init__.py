"""What feeds an engine and counts what comes of it: fit, evaluate and predict."""
