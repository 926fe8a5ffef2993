"""A training step of one job by one framework each; serve.py has what they share."""
