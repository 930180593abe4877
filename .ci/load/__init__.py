"""The clients of `mixed_load.py`, what they know must be there, and what the operating system sees of the server meanwhile."""
