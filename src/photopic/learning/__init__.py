"""What methods that learn are made of: losses, trainable parameters, subjects and batches."""
