"""Guards: what a step refuses until a person accepts it, and the record of who accepted it and why.

A step computes its findings and calls `enforce` before it shows anything. Findings that nobody has accepted refuse the
step; `headrace accept` accepts them. A step that compares something of its own counts it as a `TableLoss`:

    loss = TableLoss(table, [Loss("answer", lost, total, left)], names=ids, state=ids)
    found = loss.finding(dataset.guards_of(table), "since the last collect")
    enforce(
        [found] if found else [],
        dataset=dataset.name,
        step="label collect",
        tables=[table],
        table_store=table_store,
        consequence="The answers stay as they were.",
    )

`enforce` is in `headrace.guards.gate`, `Loss` and `TableLoss` are in `headrace.guards.vanished`.
"""
