"""``alignlab plan``: how much memory and time a training run needs, before it is started.

``alignlab.plan`` is something else: the jobs of an experiment's ``pipeline.yaml``.
"""
