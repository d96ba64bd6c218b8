"""The local stack: real servers from packages, on 127.0.0.1 only, all of them gone when their owner is.

`control` is the door (`up`, `running`, `down`, `status`); `supervise` is the one process that holds the servers;
`systems/` says, one file per server we do not own, how it is started and when it is healthy.
"""
