"""What two services must agree on: the control log, records, the bus, tokens, errors, the page frame.

Never business rules, tables, one service's settings, or anything with a single caller.
"""
