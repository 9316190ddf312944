"""A model, made ready to travel: an image context or a runnable folder, what is in it, and what looked at it before it left."""
