"""The console's common parts: who is signed in, the page frame, and errors as pages.

session.py   the signed-in user of a request, by the control log alone; roles as `Annotated` types
frame.py     pages: templates in one frame, with its headers
limits.py    how large the body of a request may be
console.py   all of that for one app
"""
