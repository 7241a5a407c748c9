"""Tools as upstreams show them, held against what administrators approved.

shown.py    the digests of the tools in a list
pins.py     what this replica has seen that was not approved
reports.py  what it has to tell policy of that
"""
