"""Situations that people met with sync layers like this one, in the field.

Each begins with what happened, and to whom; it fails if the application is broken by the engine, or if a node does not have
in the end what its user expects. A short reference such as "cr-sqlite issue 74" says where the situation was reported.

`mesh.py` starts nodes over any schema. Scenarios that need a tool from the network, such as Django, are named in `tools.py`
and run in the soak only.
"""
