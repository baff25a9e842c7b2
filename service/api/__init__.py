"""The HTTP front: one router a resource, one shape for every error. Holds no logic of its own."""
