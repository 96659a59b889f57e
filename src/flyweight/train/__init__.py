"""From images and a recipe to trained weights. Start with `loop.py`."""
