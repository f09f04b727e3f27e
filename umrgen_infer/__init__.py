"""The inference daemon: claims pending jobs, runs a diffusers pipeline, publishes the picture."""
