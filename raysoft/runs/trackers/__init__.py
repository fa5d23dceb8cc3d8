"""Where a run is shown while it goes on, besides its own folder: TensorBoard, W&B, Prometheus.

May use rundir and federation.
"""
