"""Training of CMPC's encoders, of the demo bundle's and of the generator's 256-pixel head.

The pipeline never imports it.
"""
