"""Duties as pure functions: state and clock in, decisions and their reasons out. One file for each duty."""
