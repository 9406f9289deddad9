"""Drawing the field guide's birds and their surroundings."""
