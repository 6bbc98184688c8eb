"""The alerts of this folder, made to fire and resolve on real programs: `make simulate`."""
