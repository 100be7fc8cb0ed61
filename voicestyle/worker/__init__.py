"""What runs inside TorchServe's worker process: requests in, responses out."""
