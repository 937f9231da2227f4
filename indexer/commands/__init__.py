"""The commands that read: each module is one command, mounted by the front door."""
