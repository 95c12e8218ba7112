"""The guard behind HTTP: the routes, the queue in front of the guard, and the server."""
