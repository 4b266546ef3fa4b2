"""Diffusion priors: the folder layout that generators load, and the recipe that trains the small one shipped here."""
