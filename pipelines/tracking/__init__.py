"""Write runs to MLflow, find them again, and serve them: one tracking store, a database or a server.

May import `pipelines.runtime` only.
"""
