"""Where samples come from: files, the hub, embedded tasks; how clients share them.

No torch. May use config and below.
"""
