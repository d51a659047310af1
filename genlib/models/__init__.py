"""The model families: one file each, and no file imports another."""
