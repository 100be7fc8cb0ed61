"""What the demo bundle's faces are worth: sex agreement and skin luminance; never imported by the pipeline."""
