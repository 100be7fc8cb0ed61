"""Evaluation of the demo bundle: sex agreement and skin luminance. The pipeline never imports it."""
