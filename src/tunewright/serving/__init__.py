"""Serve a saved model over HTTP: batching, limits, routes, and a page to try it."""
