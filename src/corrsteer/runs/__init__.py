"""What a run holds, on disk and in memory, and the steering that comes of it."""
