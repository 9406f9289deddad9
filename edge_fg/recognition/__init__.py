"""From the model's outputs to an answer."""
