"""Labelled images: where they come from, what is wrong with them, how they are divided, decoded and batched."""
