"""Keys that scripts outside the project read: fixed, so written down here and not taken from the code."""

ROUND_KEYS = [
    "round",
    "accuracy",
    "loss",
    "train_loss",
    "metrics",
    "round_latency_s",
    "simulated_time_s",
    "uplink_bits",
    "downlink_bits",
    "control_bits",
    "kept_fraction_mean",
    "queue_s",
    "sparsification_error",
    "aggregation_covariance",
    "participants",
    "dropped",
    "drop_reasons",
    "energy_j",
    "wall_time_s",
    "model",
]
