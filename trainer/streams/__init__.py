"""Sources of batches: lazily packed, masked, and each batch a pure function of (seed, stream, number of the step).

Nothing here imports torch, so that a worker process starts at once; nothing here keeps a position, so that a cursor is
one number and a resumed run draws what an uninterrupted one would have drawn.
"""
