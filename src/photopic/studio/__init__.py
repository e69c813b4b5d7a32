"""The server of ``photopic studio``: one page over the functions that the command line has, on this machine only.

``app`` puts the routes together, ``security`` lets nobody else in, ``workspace`` is where everything lies, ``jobs`` what was asked
for, ``worker`` the one thread that owns the model, ``stream`` what a page hears while it works. Each kind of job has a file:
``draw``, ``subject``, ``method``, ``demo``. Nothing is sent anywhere.
"""
