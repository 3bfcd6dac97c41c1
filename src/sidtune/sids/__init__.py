"""Semantic IDs: vectors of items, their quantisation, collisions, and the index that training
reads.
"""
