"""Fine-tuning: what a trained model learns anew, of which data, by which loss."""
