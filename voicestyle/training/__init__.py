"""Training of the demo bundle's encoders; stands beside the pipeline and is never imported by it."""
