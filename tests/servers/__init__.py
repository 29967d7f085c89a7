"""Real servers for tests, demo runs and benchmarks: fetched once into ``.servers/``, started on loopback, never mocked."""
