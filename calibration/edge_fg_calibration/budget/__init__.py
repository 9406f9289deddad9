"""The fidelity that a build must keep, and the layers left in float for it."""
