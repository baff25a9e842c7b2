"""The orchestrator and its HTTP front: follows a core's thought, answers its calls, serves applications."""
