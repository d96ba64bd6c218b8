"""The local stack: the servers that a project needs, from packages, on 127.0.0.1 only; none outlives the stack.

`control` starts, finds and stops a stack. `supervisor` is the process that owns its servers. `servers/` has one module
per system: how it is started, and when it is healthy.
"""
