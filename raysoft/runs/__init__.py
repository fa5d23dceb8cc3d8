"""One run from configuration to folder: begun, resumed, checkpointed, tracked.

May use distributed, planning and below.
"""
