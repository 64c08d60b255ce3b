"""The Python worker of the functions host: the FunctionRpc stream, and functions written for
`azure.functions`, indexed and called with that package's public parts alone.

`link` holds the stream, `messages` the message classes, `logs` the way of log lines. Behind them is one
of two engines with the same five handlers: `own` (with `index`, `calls` and `values`), or `official`,
which passes on to `azure-functions-runtime` where that is installed.
"""
