"""How well a bundle answers on a set of images."""
