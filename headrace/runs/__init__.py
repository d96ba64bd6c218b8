"""Isolated runs: one commit of code, a worktree of its own, and a state in git with which any machine can continue."""
