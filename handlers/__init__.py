"""The TorchServe handler: translates requests and answers, and knows no mathematics."""
