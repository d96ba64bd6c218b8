"""`headrace retrieve`: point-in-time joins, splits, training sets and loaders. Nothing here imports Feast."""
