"""Access as code: who may use what, as one document that is kept in version control.

form.py      what the document may say, and every mistake in it at once
state.py     the same as values of the domain, and what differs between two
effects.py   who gains and who loses what by a difference
"""
