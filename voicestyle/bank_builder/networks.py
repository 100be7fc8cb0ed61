"""Make the tools of a build from its options."""
def make_toolbox(options): raise NotImplementedError
