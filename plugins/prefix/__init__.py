"""Prefixes of prompts that endpoints are guessed to hold: keys, the index of them, and what its plugins share."""
