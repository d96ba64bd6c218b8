"""Feast: its offline store reads our tables, its online store holds a proved release of them.

Importing Feast takes seconds, so nothing outside this package imports it, and verbs import this package when they run.
"""
