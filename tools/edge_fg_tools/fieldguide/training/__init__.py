"""Training and judging the field guide's reference model."""
