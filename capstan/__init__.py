"""
The front door: the `capstan` command, and the demo that starts everything behind it.

Each part of the house brings its own command; this package only mounts them and runs them together.
"""
