"""The Python door: what `import raysoft` offers, with what the terminal and a notebook both need. May use everything
but the terminal.

Importing it loads neither pydantic nor numpy; each function loads what it needs when it is called.
"""
