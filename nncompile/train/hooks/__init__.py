"""What tells other services of a training: MLflow, Weights & Biases, and Optuna's pruning."""
