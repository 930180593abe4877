"""What the database promises, one check a function, each as a client in Python meets it. `sequences.py` runs them."""
