"""Functions that ``call:`` in a ``pipeline.yaml`` may name, except those of a world.

A stage's function takes the folder ``out``, which is empty, and writes its results there; its other
arguments are the stage's ``args``. Their annotations are checked before any stage begins: types,
and bounds such as ``alignlab.bounds.Count``. Any function of this form works, also one of your own.
``alignlab stages`` lists those of this package; the ones that make the data of a single world are
in ``alignlab.worlds``.
"""
