"""What the engine must know of a program beyond its IDL: one adapter for each."""
