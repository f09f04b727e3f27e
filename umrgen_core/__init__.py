"""What the two processes agree on: settings, jobs, requests, profiles, the job store and the file store."""

__version__ = "0.1.0"
