"""Training of the demo bundle's encoders. The pipeline never imports it."""
