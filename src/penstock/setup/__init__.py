"""Sets a source up: what a pipe needs there as a list of steps, carried out on request, recorded, and taken back.

Everything flows one way: ``source``, ``aws``, ``azure`` and ``by_hand`` look and make steps; ``course`` puts them in order and carries
them out; ``record`` remembers how each is taken back. Knows nothing of ClickHouse, and of no pipe that runs.
"""
