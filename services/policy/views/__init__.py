"""What the API takes and gives, as OpenAPI describes it: one module for each resource.

base.py       what all have in common
"""
