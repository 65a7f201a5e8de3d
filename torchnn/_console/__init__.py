"""What is shown while a model trains, and what of a model."""
