"""Engines that execute a bundle's graphs."""
