"""The library: one function a command, each in a file of its own, and what they take and give.

`pai_cli` itself names them; nothing here is imported before it is used.
"""
