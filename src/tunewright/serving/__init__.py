"""A saved model as a service: batching, limits, the routes, and one page to try it."""
