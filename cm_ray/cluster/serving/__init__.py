"""A model behind HTTP by Ray Serve: requests of many clients, made together on replicas.

`pieces` puts requests together into network calls, `row_counts` keeps their bits, `turns` collects what comes
during the work, `asked` reads requests, `answering` speaks HTTP: none of them knows Ray. `replica` and
`serve_model` run them on Ray Serve.
"""
