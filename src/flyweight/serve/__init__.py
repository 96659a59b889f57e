"""A bundle behind HTTP: images in, classes out, within limits that hold under load."""
