"""Profiles become pipelines here. torch and diffusers are imported below this package only."""
