"""The web tier: persists uploads and job rows, answers agents. Never imports torch."""
