"""The round: who takes part, what clients do, what becomes of it.

Knows neither run folders nor Ray; may use models, allocation, uplinks and below.
"""
